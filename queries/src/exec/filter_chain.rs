//! The chain of steps as one operator.
//!
//! DataFusion merges filters that follow each other into one condition, which loses the reasons. Here each step sees only
//! the rows that earlier steps left, and every row comes out again: with a null [`VERDICT`] when it stays, with step, rule,
//! reason and values when it goes. The sink below decides what is written where, and counts both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
    StringViewArray, StringViewBuilder, StructBuilder, UInt32Array, UInt64Builder, new_null_array,
};
use arrow::compute::{cast, interleave, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricValue, MetricsSet, Time,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use futures::StreamExt;
use ingest::filter::{Analysis, Filter, FilterKind};
use ingest::modifier::{Edit, Modifier};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shard::schema::{DatasetKind, REJECT, source_schema};

use crate::error::Error;

/// The column that tells kept rows (null) from dropped ones.
pub const VERDICT: &str = "verdict";
/// The column of spans that modifiers changed in a row.
pub const EDITS: &str = "edits";
/// `verdict.step` of records that gave no document.
pub const SOURCE_STEP: &str = "source";

/// One step of a job, ready to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its position from 1 and its name: `2:gopher_quality`.
    pub label: String,
    /// Document kinds that pass through it; all, without it.
    pub kinds: Option<Vec<String>>,
    /// Whether its signals become columns.
    pub keep_signals: bool,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Keeps or drops.
    Filter(&'static FilterKind, Arc<dyn Filter>),
    /// Rewrites.
    Modifier(&'static str, Arc<dyn Modifier>),
    /// Keeps rows for which the condition is true.
    Where(Condition),
}

/// A condition in SQL, planned over the columns that the chain has at that step.
#[derive(Clone, Debug)]
pub struct Condition {
    /// As the job says it.
    pub sql: String,
    /// The condition.
    pub expr: Arc<dyn PhysicalExpr>,
    /// What it compares, by name: the values that explain a drop.
    pub values: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

/// The steps of a job and the columns that they add.
#[derive(Clone, Debug)]
pub struct Chain {
    steps: Vec<Step>,
    /// Columns of `documents` after each step: `schemas[0]` before the first one.
    schemas: Vec<SchemaRef>,
    output: SchemaRef,
}

impl Default for Chain {
    fn default() -> Self {
        let documents = DatasetKind::Documents.schema();
        Self { steps: Vec::new(), output: output_schema(&documents), schemas: vec![documents] }
    }
}

impl Chain {
    /// Adds a step behind the others.
    pub fn push(&mut self, step: Step) {
        let mut fields = self.documents().fields().to_vec();
        if let (true, Action::Filter(kind, _)) = (step.keep_signals, &step.action) {
            fields.extend(kind.signals.iter().map(|signal| {
                let name = format!("{}_{}", kind.name, signal.name);
                Arc::new(Field::new(name, signal.data_type.clone(), true))
            }));
        }
        let documents = Arc::new(Schema::new(fields));
        self.output = output_schema(&documents);
        self.schemas.push(documents);
        self.steps.push(step);
    }

    /// The columns of `documents` behind the last step.
    #[must_use]
    pub fn documents(&self) -> &SchemaRef {
        self.schemas.last().expect("there is one before the first step")
    }

    /// The columns that come out: those of `documents`, then [`VERDICT`] and [`EDITS`].
    #[must_use]
    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// The steps, with nothing that they have cost.
    #[must_use]
    pub fn no_costs(&self) -> Vec<StepCost> {
        let cost = |step: &Step| StepCost { step: step.label.clone(), ..StepCost::default() };
        self.steps.iter().map(cost).collect()
    }

    /// Sends a batch of [`source_schema`] through all steps; rows come out in the same order.
    ///
    /// # Errors
    /// When a step cannot work on the batch at all.
    pub fn run(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        self.run_metered(batch, &[])
    }

    /// [`Chain::run`], with a meter per step or none at all.
    fn run_metered(&self, batch: &RecordBatch, meters: &[Meter]) -> Result<RecordBatch, Error> {
        let mut rows = Rows::begin(self, batch)?;
        for (index, step) in self.steps.iter().enumerate() {
            let meter = meters.get(index);
            if let Some(meter) = meter {
                meter.rows.add(rows.current.num_rows());
                meter.bytes.add(text_bytes(&rows.current));
            }
            let timer = meter.map(|meter| meter.time.timer());
            rows.step(step, &self.schemas[index + 1])?;
            drop(timer);
        }
        rows.finish(self)
    }
}

fn output_schema(documents: &SchemaRef) -> SchemaRef {
    let mut fields = documents.fields().to_vec();
    fields.push(Arc::new(Field::new(VERDICT, DataType::Struct(verdict_fields()), true)));
    let edit = Field::new("item", DataType::Struct(edit_fields()), true);
    fields.push(Arc::new(Field::new(EDITS, DataType::List(Arc::new(edit)), true)));
    Arc::new(Schema::new(fields))
}

fn verdict_fields() -> Fields {
    let text = |name, nullable| Field::new(name, DataType::Utf8View, nullable);
    Fields::from(vec![
        text("step", true),
        text("rule", true),
        text("reason", true),
        text("values", true),
    ])
}

fn edit_fields() -> Fields {
    Fields::from(vec![
        Field::new("step", DataType::Utf8, true),
        Field::new("start", DataType::UInt64, true),
        Field::new("end", DataType::UInt64, true),
        Field::new("rule", DataType::Utf8, true),
        Field::new("replacement", DataType::Utf8, true),
    ])
}

/// Why a row goes.
#[derive(Debug)]
struct Verdict {
    step: String,
    rule: String,
    reason: String,
    values: Option<String>,
}

/// A batch on its way through the chain.
struct Rows {
    /// The rows that are left, with the columns of the current step.
    current: RecordBatch,
    /// For each row that is left, its index in the batch that came in.
    origins: Vec<u32>,
    /// Batches of dropped rows, as they were when they were dropped.
    dropped: Vec<RecordBatch>,
    /// For each row that came in: in which batch of `dropped` it lies, and where.
    places: Vec<Option<(usize, usize)>>,
    verdicts: Vec<Option<Verdict>>,
    edits: Vec<Vec<(String, Edit)>>,
    /// What filters share of the texts.
    analysis: Analysis,
}

impl Rows {
    fn begin(chain: &Chain, batch: &RecordBatch) -> Result<Self, Error> {
        let n = batch.num_rows();
        let reject = batch.column_by_name(REJECT).map(|column| column.as_string_view().clone());
        let width = source_schema().fields().len() - 1;
        let documents =
            RecordBatch::try_new(Arc::clone(&chain.schemas[0]), batch.columns()[..width].to_vec())?;
        let mut rows = Self {
            current: documents,
            origins: (0..u32::try_from(n).expect("batches are small")).collect(),
            dropped: Vec::new(),
            places: vec![None; n],
            verdicts: (0..n).map(|_| None).collect(),
            edits: vec![Vec::new(); n],
            analysis: Analysis::default(),
        };
        if let Some(reject) = reject
            && reject.null_count() < n
        {
            let verdicts = (0..n).map(|row| {
                reject.is_valid(row).then(|| Verdict {
                    step: SOURCE_STEP.to_owned(),
                    rule: SOURCE_STEP.to_owned(),
                    reason: reject.value(row).to_owned(),
                    values: None,
                })
            });
            let verdicts = verdicts.collect();
            rows.drop_rows(verdicts)?;
        }
        Ok(rows)
    }

    fn step(&mut self, step: &Step, schema: &SchemaRef) -> Result<(), Error> {
        let (subset, batch) = self.subset(step)?;
        match &step.action {
            Action::Filter(kind, filter) => {
                let verdicts = filter.judge_with(&batch, &mut self.analysis)?;
                let reasons = verdicts.reasons.clone();
                self.drop_subset(step, kind.name, &subset, &reasons, |row| {
                    let names = kind.signals.iter().map(|signal| signal.name);
                    json_object(names.zip(&verdicts.signals), row)
                })?;
                // Signals describe the rows as the step saw them; those that are left keep theirs.
                let kept: Vec<Option<usize>> = self.positions(&subset, &reasons);
                for (signal, values) in kind.signals.iter().zip(&verdicts.signals) {
                    self.fill(signal.name, values, &kept)?;
                }
                if step.keep_signals {
                    self.widen(schema, &verdicts.signals, &kept)?;
                }
            }
            Action::Modifier(name, modifier) => {
                let modified = modifier.modify(&batch)?;
                for edit in modified.edits {
                    let origin = self.origins[subset[edit.row]] as usize;
                    self.edits[origin].push((step.label.clone(), edit));
                }
                self.replace_text(&subset, &modified.text)?;
                self.found(&subset, &modified.found)?;
                if let Some(reasons) = &modified.reasons {
                    self.drop_subset(step, name, &subset, reasons, |_| None)?;
                }
            }
            Action::Where(condition) => self.filter_where(step, condition, &subset, &batch)?,
        }
        Ok(())
    }

    /// The rows that pass through `step`: their indices in `current`, and a batch of them.
    fn subset(&self, step: &Step) -> Result<(Vec<usize>, RecordBatch), Error> {
        let all = || (0..self.current.num_rows()).collect::<Vec<_>>();
        let Some(kinds) = &step.kinds else {
            return Ok((all(), self.current.clone()));
        };
        let kind = self.current.column_by_name("kind").expect("documents have a kind");
        let kind = kind.as_string_view();
        let subset: Vec<usize> = all()
            .into_iter()
            .filter(|&row| kinds.iter().any(|name| name == kind.value(row)))
            .collect();
        if subset.len() == self.current.num_rows() {
            return Ok((subset, self.current.clone()));
        }
        let indices = UInt32Array::from_iter_values(subset.iter().map(|&row| index(row)));
        Ok((subset, take_record_batch(&self.current, &indices)?))
    }

    fn filter_where(
        &mut self,
        step: &Step,
        condition: &Condition,
        subset: &[usize],
        batch: &RecordBatch,
    ) -> Result<(), Error> {
        let n = batch.num_rows();
        if n == 0 {
            return Ok(());
        }
        let truth = condition.expr.evaluate(batch)?.into_array(n)?;
        let truth: &BooleanArray = truth.as_boolean();
        if truth.true_count() == n {
            return Ok(());
        }
        let values = condition
            .values
            .iter()
            .map(|(name, expr)| Ok((name.as_str(), expr.evaluate(batch)?.into_array(n)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let reasons = (0..n).map(|row| match truth.is_valid(row) && truth.value(row) {
            true => None,
            false => Some("condition_not_true"),
        });
        let reasons = reasons.collect();
        self.drop_subset(step, &condition.sql, subset, &reasons, |row| {
            json_object(values.iter().map(|(name, array)| (*name, array)), row)
        })
    }

    /// Drops the rows of `subset` that have a reason.
    fn drop_subset(
        &mut self,
        step: &Step,
        rule: &str,
        subset: &[usize],
        reasons: &arrow::array::StringArray,
        values: impl Fn(usize) -> Option<String>,
    ) -> Result<(), Error> {
        assert_eq!(reasons.len(), subset.len(), "{}: one verdict per row", step.label);
        if reasons.null_count() == reasons.len() {
            return Ok(());
        }
        let mut verdicts: Vec<Option<Verdict>> =
            (0..self.current.num_rows()).map(|_| None).collect();
        for (row, &place) in subset.iter().enumerate() {
            if reasons.is_valid(row) {
                verdicts[place] = Some(Verdict {
                    step: step.label.clone(),
                    rule: rule.to_owned(),
                    reason: reasons.value(row).to_owned(),
                    values: values(row),
                });
            }
        }
        self.drop_rows(verdicts)
    }

    /// Moves the rows of `current` that have a verdict to `dropped`.
    fn drop_rows(&mut self, verdicts: Vec<Option<Verdict>>) -> Result<(), Error> {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for (row, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                None => kept.push(index(row)),
                Some(verdict) => {
                    let origin = self.origins[row] as usize;
                    self.places[origin] = Some((self.dropped.len(), gone.len()));
                    self.verdicts[origin] = Some(verdict);
                    gone.push(index(row));
                }
            }
        }
        self.origins = kept.iter().map(|&row| self.origins[row as usize]).collect();
        self.dropped.push(take_record_batch(&self.current, &UInt32Array::from(gone))?);
        self.current = take_record_batch(&self.current, &UInt32Array::from(kept))?;
        Ok(())
    }

    /// For each row that is left, its row in the step's output, if it passed through the step.
    fn positions(
        &self,
        subset: &[usize],
        reasons: &arrow::array::StringArray,
    ) -> Vec<Option<usize>> {
        // `current` lost exactly the rows of the subset that have a reason.
        let n_before = self.current.num_rows() + (reasons.len() - reasons.null_count());
        let mut rows = vec![Some(None); n_before];
        for (row, &place) in subset.iter().enumerate() {
            rows[place] = reasons.is_null(row).then_some(Some(row));
        }
        rows.into_iter().flatten().collect()
    }

    /// Fills nulls of the text column `name`, if `documents` has one, with values of a step.
    fn fill(
        &mut self,
        name: &str,
        values: &ArrayRef,
        positions: &[Option<usize>],
    ) -> Result<(), Error> {
        let Some((column_index, field)) = self.current.schema_ref().column_with_name(name) else {
            return Ok(());
        };
        if *field.data_type() != DataType::Utf8View || !field.is_nullable() {
            return Ok(());
        }
        let values = cast(values, &DataType::Utf8View)?;
        let values = values.as_string_view();
        let old = self.current.column(column_index).as_string_view();
        let filled: StringViewArray = positions
            .iter()
            .enumerate()
            .map(|(row, position)| match (old.is_valid(row), position) {
                (true, _) => Some(old.value(row)),
                (false, Some(position)) if values.is_valid(*position) => {
                    Some(values.value(*position))
                }
                _ => None,
            })
            .collect();
        self.set_column(column_index, Arc::new(filled))
    }

    /// Adds the step's signals as columns; null for rows that did not pass through it.
    fn widen(
        &mut self,
        schema: &SchemaRef,
        signals: &[ArrayRef],
        positions: &[Option<usize>],
    ) -> Result<(), Error> {
        let indices: UInt32Array = positions.iter().map(|row| row.map(index)).collect();
        let mut columns = self.current.columns().to_vec();
        for signal in signals {
            columns.push(arrow::compute::take(signal, &indices, None)?);
        }
        let columns = columns
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        self.current = RecordBatch::try_new(Arc::clone(schema), columns)?;
        Ok(())
    }

    fn replace_text(&mut self, subset: &[usize], text: &StringViewArray) -> Result<(), Error> {
        assert_eq!(text.len(), subset.len(), "a modifier gives one text per row");
        let (column_index, _) =
            self.current.schema_ref().column_with_name("text").expect("documents have a text");
        if subset.len() == self.current.num_rows() {
            return self.set_column(column_index, Arc::new(text.clone()));
        }
        let mut sources: Vec<(usize, usize)> =
            (0..self.current.num_rows()).map(|row| (0, row)).collect();
        for (row, &place) in subset.iter().enumerate() {
            sources[place] = (1, row);
        }
        let old = self.current.column(column_index);
        let merged = interleave(&[old.as_ref(), text], &sources)?;
        self.set_column(column_index, merged)
    }

    /// Puts what a modifier found into the columns and the metadata of the rows.
    fn found(
        &mut self,
        subset: &[usize],
        found: &[(usize, &'static str, String)],
    ) -> Result<(), Error> {
        if found.is_empty() {
            return Ok(());
        }
        let n = self.current.num_rows();
        let mut metadata: Vec<Vec<(&str, &str)>> = vec![Vec::new(); n];
        let mut columns = std::collections::BTreeMap::<&str, Vec<Option<&str>>>::new();
        for (row, key, value) in found {
            let place = subset[*row];
            let is_column =
                self.current.schema_ref().column_with_name(key).is_some_and(|(_, field)| {
                    *field.data_type() == DataType::Utf8View && field.is_nullable()
                });
            match is_column {
                true => columns.entry(*key).or_insert_with(|| vec![None; n])[place] = Some(value),
                false => metadata[place].push((*key, value.as_str())),
            }
        }
        let positions: Vec<Option<usize>> = (0..n).map(Some).collect();
        for (key, values) in columns {
            let values: ArrayRef = Arc::new(StringViewArray::from_iter(values));
            self.fill(key, &values, &positions)?;
        }
        if metadata.iter().any(|pairs| !pairs.is_empty()) {
            let (column_index, _) =
                self.current.schema_ref().column_with_name("metadata").expect("documents have it");
            let merged = merge_metadata(self.current.column(column_index), &metadata)?;
            self.set_column(column_index, merged)?;
        }
        Ok(())
    }

    fn set_column(&mut self, column_index: usize, column: ArrayRef) -> Result<(), Error> {
        let mut columns = self.current.columns().to_vec();
        columns[column_index] = column;
        self.current = RecordBatch::try_new(self.current.schema(), columns)?;
        Ok(())
    }

    /// Puts kept and dropped rows back into the order in which they came.
    fn finish(mut self, chain: &Chain) -> Result<RecordBatch, Error> {
        let kept_batch = self.dropped.len();
        for (row, &origin) in self.origins.iter().enumerate() {
            self.places[origin as usize] = Some((kept_batch, row));
        }
        self.dropped.push(self.current);
        let places: Vec<(usize, usize)> =
            self.places.iter().map(|place| place.expect("every row is somewhere")).collect();
        let documents = chain.documents();
        let mut columns = Vec::with_capacity(documents.fields().len() + 2);
        for (column_index, field) in documents.fields().iter().enumerate() {
            // Rows dropped before a step lack the columns that it adds.
            let parts: Vec<ArrayRef> = self
                .dropped
                .iter()
                .map(|batch| match batch.columns().get(column_index) {
                    Some(column) => Arc::clone(column),
                    None => new_null_array(field.data_type(), batch.num_rows()),
                })
                .collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(interleave(&parts, &places)?);
        }
        columns.push(verdict_column(&self.verdicts));
        columns.push(edit_column(&self.edits));
        Ok(RecordBatch::try_new(Arc::clone(&chain.output), columns)?)
    }
}

fn index(row: usize) -> u32 {
    u32::try_from(row).expect("batches are small")
}

/// The values of a row as a JSON object, in the order of `columns`; none when all are null.
fn json_object<'a>(
    columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>,
    row: usize,
) -> Option<String> {
    let mut object = Map::new();
    for (name, array) in columns {
        let value = match array.data_type() {
            _ if array.is_null(row) => continue,
            DataType::Float64 => Value::from(array.as_primitive::<Float64Type>().value(row)),
            DataType::UInt64 => Value::from(array.as_primitive::<UInt64Type>().value(row)),
            DataType::Boolean => Value::from(array.as_boolean().value(row)),
            _ => match arrow::util::display::array_value_to_string(array, row) {
                // Numbers of other widths look the same in JSON.
                Ok(text) if array.data_type().is_numeric() => {
                    serde_json::from_str(&text).unwrap_or(Value::String(text))
                }
                Ok(text) => Value::String(text),
                Err(_) => continue,
            },
        };
        object.insert(name.to_owned(), value);
    }
    (!object.is_empty()).then(|| Value::Object(object).to_string())
}

fn merge_metadata(old: &ArrayRef, new: &[Vec<(&str, &str)>]) -> Result<ArrayRef, ArrowError> {
    let old = old.as_map();
    let names = MapFieldNames {
        entry: "entries".to_owned(),
        key: "keys".to_owned(),
        value: "values".to_owned(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for (row, pairs) in new.iter().enumerate() {
        if old.is_null(row) && pairs.is_empty() {
            builder.append(false)?;
            continue;
        }
        if old.is_valid(row) {
            let entries = old.value(row);
            let (keys, values) =
                (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            for entry in 0..entries.len() {
                if pairs.iter().all(|(key, _)| *key != keys.value(entry)) {
                    builder.keys().append_value(keys.value(entry));
                    builder
                        .values()
                        .append_option(values.is_valid(entry).then(|| values.value(entry)));
                }
            }
        }
        for (key, value) in pairs {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn verdict_column(verdicts: &[Option<Verdict>]) -> ArrayRef {
    let fields = verdict_fields();
    let mut builder = StructBuilder::from_fields(fields, verdicts.len());
    for verdict in verdicts {
        let values = match verdict {
            Some(verdict) => [
                Some(verdict.step.as_str()),
                Some(verdict.rule.as_str()),
                Some(verdict.reason.as_str()),
                verdict.values.as_deref(),
            ],
            None => [None; 4],
        };
        for (column, value) in values.into_iter().enumerate() {
            let text = builder.field_builder::<StringViewBuilder>(column);
            text.expect("all fields are text").append_option(value);
        }
        builder.append(verdict.is_some());
    }
    Arc::new(builder.finish())
}

fn edit_column(edits: &[Vec<(String, Edit)>]) -> ArrayRef {
    let item = Field::new("item", DataType::Struct(edit_fields()), true);
    let mut builder =
        ListBuilder::new(StructBuilder::from_fields(edit_fields(), 0)).with_field(item);
    for edits in edits {
        for (step, edit) in edits {
            let item = builder.values();
            let mut text = |column: usize, value: &str| {
                let text = item.field_builder::<StringBuilder>(column);
                text.expect("the field is text").append_value(value);
            };
            text(0, step);
            text(3, edit.rule);
            text(4, &edit.replacement);
            for (column, value) in [(1, edit.start), (2, edit.end)] {
                let number = item.field_builder::<UInt64Builder>(column);
                number.expect("the field is a number").append_value(value as u64);
            }
            item.append(true);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Bytes of the column `text`.
fn text_bytes(documents: &RecordBatch) -> usize {
    let text = documents.column_by_name("text").expect("documents have a text");
    text.as_string_view().lengths().map(|bytes| bytes as usize).sum()
}

/// What a step has cost so far, as metrics of the operator.
struct Meter {
    rows: Count,
    bytes: Count,
    time: Time,
}

impl Meter {
    const LABEL: &str = "step";
    const ROWS: &str = "step_rows";
    const BYTES: &str = "step_bytes";
    const TIME: &str = "step_time";

    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize, step: &Step) -> Self {
        let metric = || MetricBuilder::new(metrics).with_new_label(Self::LABEL, step.label.clone());
        Self {
            rows: metric().counter(Self::ROWS, partition),
            bytes: metric().counter(Self::BYTES, partition),
            time: metric().subset_time(Self::TIME, partition),
        }
    }
}

/// What a step saw and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// Its label.
    pub step: String,
    /// Documents that came in.
    pub rows: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Seconds of one thread.
    pub seconds: f64,
}

/// Returns the cost of each step of the chains in an executed `plan`, in the order of the steps.
#[must_use]
pub fn step_costs(plan: &Arc<dyn ExecutionPlan>) -> Vec<StepCost> {
    let mut costs: Vec<StepCost> = Vec::new();
    for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
        let Some(label) = metric.labels().iter().find(|label| label.name() == Meter::LABEL) else {
            continue;
        };
        let at = costs.iter().position(|cost| cost.step == label.value()).unwrap_or_else(|| {
            costs.push(StepCost { step: label.value().to_owned(), ..StepCost::default() });
            costs.len() - 1
        });
        match metric.value() {
            MetricValue::Count { name, count } if name == Meter::ROWS => {
                costs[at].rows += count.value() as u64;
            }
            MetricValue::Count { name, count } if name == Meter::BYTES => {
                costs[at].bytes += count.value() as u64;
            }
            MetricValue::Time { time, .. } => {
                costs[at].seconds += Duration::from_nanos(time.value() as u64).as_secs_f64();
            }
            _ => {}
        }
    }
    costs.extend(plan.children().into_iter().flat_map(step_costs));
    costs
}

/// The operator: one batch out for each batch in.
#[derive(Debug)]
pub struct FilterChainExec {
    chain: Arc<Chain>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FilterChainExec {
    /// Puts `chain` above `input`, whose schema is that of sources.
    #[must_use]
    pub fn new(chain: Arc<Chain>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(chain.output())),
            input.properties().partitioning.clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { chain, input, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for FilterChainExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterChainExec: steps=[")?;
        for (index, step) in self.chain.steps.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", step.label)?;
            if let Action::Where(condition) = &step.action {
                write!(f, "({})", condition.sql)?;
            }
            if let Some(kinds) = &step.kinds {
                write!(f, " on {}", kinds.join("|"))?;
            }
        }
        write!(f, "]")
    }
}

impl ExecutionPlan for FilterChainExec {
    fn name(&self) -> &str {
        "FilterChainExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("it has one child");
        Ok(Arc::new(Self::new(Arc::clone(&self.chain), input)))
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("it has one child");
        Ok(Arc::new(Self::new(Arc::clone(&self.chain), input)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for step in &self.chain.steps {
            if let Action::Where(condition) = &step.action
                && f(&condition.expr)? == TreeNodeRecursion::Stop
            {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let chain = Arc::clone(&self.chain);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let meters: Vec<Meter> =
            chain.steps.iter().map(|step| Meter::new(&self.metrics, partition, step)).collect();
        let stream = input.map(move |batch| {
            let timer = metrics.elapsed_compute().timer();
            let batch = chain.run_metered(&batch?, &meters)?;
            timer.done();
            metrics.record_output(batch.num_rows());
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.chain.output()), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests;

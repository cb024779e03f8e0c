//! `histogram`: how the values of a column are spread.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StructArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{Result as EngineResult, ScalarValue, exec_err};
use datafusion::logical_expr::Accumulator;

use super::{FunctionKind, aggregate};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "histogram",
    summary: "an aggregate: the values in bins of equal width from `low` to `high`, the last with `high` in it; values outside come in bins of their own, which are there only if they hold any",
    arguments: "(value, low, high, number of bins)",
    returns: "list of struct of low, high and n",
    // NumPy 2.3: numpy.histogram([0, 0.1, 0.5, 1], bins=2, range=(0, 1)) gives [2, 2].
    example: (
        "(select array_to_string([h[1]['n'], h[2]['n'], h[3]['n'], h[3]['low']], ' ') from (select histogram(x, 0, 1, 2) as h from (values (0), (0.1), (0.5), (1), (7)) as v(x)))",
        "2 2 1 1",
    ),
    build: || {
        let number = DataType::Float64;
        let arguments = vec![number.clone(), number.clone(), number.clone(), DataType::Int64];
        let state = vec![number.clone(), number, list(DataType::UInt64)];
        aggregate::<Bins>("histogram", arguments, list(DataType::Struct(fields())), state)
    },
};

/// More bins than anybody looks at.
const BINS_MAX: usize = 10_000;

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("low", DataType::Float64, true),
        Field::new("high", DataType::Float64, true),
        Field::new("n", DataType::UInt64, true),
    ])
}

#[derive(Debug, Default)]
struct Bins {
    low: f64,
    high: f64,
    /// Those below, in each bin, and above; nothing before the first row.
    counts: Vec<u64>,
}

impl Bins {
    fn begin(&mut self, values: &[ArrayRef]) -> EngineResult<()> {
        let number = |at: usize| values[at].as_primitive::<Float64Type>().iter().flatten().next();
        let n = values[3].as_primitive::<Int64Type>().iter().flatten().next();
        let (Some(low), Some(high), Some(n)) = (number(1), number(2), n) else {
            return exec_err!("`histogram` takes bounds and a number of bins that are not null");
        };
        if !(low.is_finite() && high.is_finite() && low < high) {
            return exec_err!(
                "`histogram` takes bounds of which the first is lower, not {low} and {high}"
            );
        }
        let Some(n) = usize::try_from(n).ok().filter(|n| (1..=BINS_MAX).contains(n)) else {
            return exec_err!("`histogram` takes 1 to {BINS_MAX} bins, not {n}");
        };
        (self.low, self.high, self.counts) = (low, high, vec![0; n + 2]);
        Ok(())
    }

    /// The lower edge of a bin, from 0.
    #[expect(clippy::cast_precision_loss, reason = "few bins")]
    fn edge(&self, bin: usize) -> f64 {
        let n = self.counts.len() - 2;
        match bin == n {
            true => self.high,
            false => self.low + (self.high - self.low) * (bin as f64 / n as f64),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of few bins"
    )]
    fn place(&self, value: f64) -> usize {
        let n = self.counts.len() - 2;
        if value < self.low {
            return 0;
        }
        if value > self.high {
            return n + 1;
        }
        let share = (value - self.low) / (self.high - self.low);
        let mut bin = ((share * n as f64) as usize).min(n - 1);
        // Rounding may have led to a neighbour.
        if value < self.edge(bin) {
            bin -= 1;
        } else if bin + 1 < n && value >= self.edge(bin + 1) {
            bin += 1;
        }
        bin + 1
    }
}

impl Accumulator for Bins {
    fn update_batch(&mut self, values: &[ArrayRef]) -> EngineResult<()> {
        if self.counts.is_empty() && !values[0].is_empty() {
            self.begin(values)?;
        }
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            if !value.is_nan() {
                let place = self.place(value);
                self.counts[place] += 1;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> EngineResult<ScalarValue> {
        if self.counts.is_empty() {
            return ScalarValue::try_from(list(DataType::Struct(fields())));
        }
        let n = self.counts.len() - 2;
        let below = (f64::NEG_INFINITY, self.low, self.counts[0]);
        let above = (self.high, f64::INFINITY, self.counts[n + 1]);
        let bins = (0..n).map(|bin| (self.edge(bin), self.edge(bin + 1), self.counts[bin + 1]));
        let outside = |bin: (f64, f64, u64)| Some(bin).filter(|bin| bin.2 > 0);
        let bins: Vec<_> = outside(below).into_iter().chain(bins).chain(outside(above)).collect();
        let rows = StructArray::new(
            fields(),
            vec![
                Arc::new(Float64Array::from_iter_values(bins.iter().map(|bin| bin.0))),
                Arc::new(Float64Array::from_iter_values(bins.iter().map(|bin| bin.1))),
                Arc::new(UInt64Array::from_iter_values(bins.iter().map(|bin| bin.2))),
            ],
            None,
        );
        let item = Arc::new(Field::new_list_field(DataType::Struct(fields()), true));
        let offsets = OffsetBuffer::from_lengths([bins.len()]);
        Ok(ScalarValue::List(Arc::new(ListArray::new(item, offsets, Arc::new(rows), None))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<u64>()
    }

    fn state(&mut self) -> EngineResult<Vec<ScalarValue>> {
        let counts: Vec<ScalarValue> = self.counts.iter().map(|count| (*count).into()).collect();
        let counts = ScalarValue::new_list_nullable(&counts, &DataType::UInt64);
        Ok(vec![self.low.into(), self.high.into(), ScalarValue::List(counts)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> EngineResult<()> {
        let bound = |at: usize, row| states[at].as_primitive::<Float64Type>().value(row);
        for (row, counts) in states[2].as_list::<i32>().iter().enumerate() {
            let Some(counts) = counts.filter(|counts| !counts.is_empty()) else { continue };
            let counts = counts.as_primitive::<UInt64Type>().values();
            if self.counts.is_empty() {
                (self.low, self.high) = (bound(0, row), bound(1, row));
                self.counts = counts.to_vec();
                continue;
            }
            self.counts.iter_mut().zip(counts).for_each(|(count, more)| *count += more);
        }
        Ok(())
    }
}

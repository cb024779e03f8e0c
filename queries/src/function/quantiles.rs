//! `quantiles`: exact quantiles of a column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result as EngineResult, ScalarValue, exec_err};
use datafusion::logical_expr::Accumulator;

use super::{FunctionKind, aggregate};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "quantiles",
    summary: "an aggregate: the exact quantiles of the values that are not null, between two of them by proportion, as NumPy's default; keeps eight bytes for each value, within the memory of the query (`approx_percentile_cont` keeps few)",
    arguments: "(value, list of numbers from 0 to 1)",
    returns: "list of doubles",
    // NumPy 2.3: numpy.quantile([4, 1, 3, 2], [0, 0.5, 0.9])
    example: (
        "(select quantiles(x, [0, 0.5, 0.9]) from (values (4), (1), (3), (2), (null)) as v(x))",
        "[1.0, 2.5, 3.7]",
    ),
    build: || {
        let arguments = vec![DataType::Float64, list()];
        aggregate::<Values>("quantiles", arguments, list(), vec![list(), list()])
    },
};

fn list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

#[derive(Debug, Default)]
struct Values {
    values: Vec<f64>,
    /// What is asked for; nothing before the first row.
    shares: Vec<f64>,
}

impl Values {
    /// The quantile of sorted values.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among values in memory, which is not negative"
    )]
    fn quantile(&self, share: f64) -> f64 {
        let place = share * (self.values.len() - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(self.values.len() - 1);
        let (low, high) = (self.values[below], self.values[above]);
        low + (high - low) * (place - place.floor())
    }
}

fn to_list(values: &[f64]) -> ScalarValue {
    let values: Vec<ScalarValue> = values.iter().map(|value| (*value).into()).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> EngineResult<()> {
        if self.shares.is_empty()
            && let Some(shares) = values[1].as_list::<i32>().iter().flatten().next()
        {
            self.shares = shares.as_primitive::<Float64Type>().iter().flatten().collect();
            if let Some(share) = self.shares.iter().find(|share| !(0.0..=1.0).contains(*share)) {
                return exec_err!("`quantiles` takes numbers from 0 to 1, not {share}");
            }
        }
        let values = values[0].as_primitive::<Float64Type>();
        self.values.extend(values.iter().flatten().filter(|value| !value.is_nan()));
        Ok(())
    }

    fn evaluate(&mut self) -> EngineResult<ScalarValue> {
        if self.values.is_empty() {
            return ScalarValue::try_from(list());
        }
        self.values.sort_unstable_by(f64::total_cmp);
        let found: Vec<f64> = self.shares.iter().map(|share| self.quantile(*share)).collect();
        Ok(to_list(&found))
    }

    fn size(&self) -> usize {
        size_of_val(self) + (self.values.capacity() + self.shares.capacity()) * size_of::<f64>()
    }

    fn state(&mut self) -> EngineResult<Vec<ScalarValue>> {
        Ok(vec![to_list(&self.values), to_list(&self.shares)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> EngineResult<()> {
        let (values, shares) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for values in values.iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().values());
        }
        if let Some(shares) = shares.iter().flatten().find(|shares| !shares.is_empty()) {
            self.shares = shares.as_primitive::<Float64Type>().values().to_vec();
        }
        Ok(())
    }
}

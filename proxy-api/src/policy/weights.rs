//! Weighted choice in constant time: Walker's alias table in exact integer arithmetic, so that no positive weight is
//! ever lost to rounding.

/// A table of weights. Choosing takes one random number and no loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    // (chance of keeping the column, out of u64::MAX + 1; where to go otherwise)
    columns: Vec<(u64, u32)>,
}

impl Alias {
    /// The table; `None` if no weight is positive.
    pub fn new(weights: &[u64]) -> Option<Self> {
        let _ = weights;
        todo!()
    }

    /// The index for `random`, which must be uniform over all 64-bit numbers (two independent draws: column and coin).
    pub fn pick(&self, column: u64, coin: u64) -> usize {
        let _ = (column, coin);
        todo!()
    }
}

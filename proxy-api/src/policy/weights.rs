//! Weighted choice in constant time: Walker's alias table in exact integer arithmetic, so that no positive weight is
//! ever lost to rounding.

/// A table of weights. Choosing takes two random numbers and no loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    columns: Vec<Column>,
}

/// One column of the table: equally likely as any other, shared by at most two choices.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    /// How many of the 2^64 coins stay with `own`; the others go to `other`. A column of one choice names it twice.
    keep: u64,
    own: u32,
    other: u32,
}

/// What is left of a choice while the table is filled; the capacity of a column is the sum of all weights.
struct Part {
    choice: u32,
    mass: u128,
}

impl Alias {
    /// The table; `None` if no weight is positive. Choices of weight 0 are never picked.
    pub fn new(weights: &[u64]) -> Option<Self> {
        let positive: Vec<(u32, u64)> = (0..)
            .zip(weights.iter().copied())
            .filter(|(_, weight)| *weight > 0)
            .collect();
        // At most 2^32 weights below 2^64: every sum and every product below stays under 2^96.
        let total: u128 = positive.iter().map(|(_, weight)| u128::from(*weight)).sum();
        let count = positive.len() as u128;
        let parts = positive.iter().map(|(choice, weight)| Part {
            choice: *choice,
            mass: u128::from(*weight) * count,
        });
        (total > 0).then(|| Self {
            columns: fill(parts, total),
        })
    }

    /// The chosen index. `column` and `coin` are two independent draws, uniform over all 64-bit numbers.
    pub fn pick(&self, column: u64, coin: u64) -> usize {
        // Multiply and shift: the high half of the product is uniform over the columns.
        let column = (u128::from(column) * self.columns.len() as u128) >> 64;
        let column = &self.columns[column as usize];
        (if coin < column.keep {
            column.own
        } else {
            column.other
        }) as usize
    }
}

/// Fills one column after another: a part that is too small for its column, topped up by one that is too large.
fn fill(parts: impl Iterator<Item = Part>, total: u128) -> Vec<Column> {
    let (mut small, mut large): (Vec<Part>, Vec<Part>) = parts.partition(|part| part.mass < total);
    let mut columns = Vec::with_capacity(small.len() + large.len());
    while let Some(mut rich) = large.pop() {
        match small.pop() {
            // Sums are exact, so what remains without a small one is exactly one column each.
            None => columns.push(Column {
                keep: 0,
                own: rich.choice,
                other: rich.choice,
            }),
            Some(poor) => {
                columns.push(Column {
                    keep: coins(poor.mass, total),
                    own: poor.choice,
                    other: rich.choice,
                });
                rich.mass -= total - poor.mass;
                if rich.mass < total {
                    small.push(rich)
                } else {
                    large.push(rich)
                }
            }
        }
    }
    columns
}

/// `mass / total` of the 2^64 coins, at least one: rounding never takes a choice away. `mass < total`.
fn coins(mass: u128, total: u128) -> u64 {
    // mass < 2^96 does not leave room for a shift by 64; long division in two digits of 32 bits does.
    let high = (mass << 32) / total;
    let low = (((mass << 32) % total) << 32) / total;
    u64::try_from((high << 32) | low).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The share of each choice, exact: every column counts alike, and its coins out of 2^64.
    fn shares(weights: &[u64]) -> Vec<f64> {
        let table = Alias::new(weights).unwrap();
        let mut shares = vec![0.0; weights.len()];
        for column in &table.columns {
            let keep = column.keep as f64 / 2f64.powi(64);
            shares[column.own as usize] += keep / table.columns.len() as f64;
            shares[column.other as usize] += (1.0 - keep) / table.columns.len() as f64;
        }
        shares
    }

    #[test]
    fn every_choice_has_its_share() {
        for weights in [
            &[1u64][..],
            &[0, 7],
            &[1, 1],
            &[90, 10],
            &[1000, 500],
            &[1, 2, 3, 4, 5, 6, 7],
            &[1, 999_999, 0, 12, 12],
            &[u64::MAX, u64::MAX, 1 << 63],
        ] {
            let total: f64 = weights.iter().map(|w| *w as f64).sum();
            for (share, weight) in shares(weights).iter().zip(weights) {
                assert!(
                    (share - *weight as f64 / total).abs() < 1e-9,
                    "{weights:?}: {share}"
                );
            }
        }
    }

    #[test]
    fn without_a_positive_weight_there_is_no_table() {
        assert_eq!(Alias::new(&[]), None);
        assert_eq!(Alias::new(&[0, 0]), None);
    }

    #[test]
    fn weight_zero_is_never_picked_whatever_the_coin() {
        let table = Alias::new(&[0, 5, 0, 1, 0]).unwrap();
        for column in [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
            for coin in [0, 1, u64::MAX / 2, u64::MAX] {
                assert!([1, 3].contains(&table.pick(column, coin)));
            }
        }
    }

    #[test]
    fn the_smallest_weight_stays_beside_the_largest() {
        let weights = [i64::MAX as u64, 1, i64::MAX as u64];
        let table = Alias::new(&weights).unwrap();
        let coins: u128 = table
            .columns
            .iter()
            .filter(|c| c.own == 1)
            .map(|c| u128::from(c.keep))
            .sum();
        assert!(coins > 0);
        let first = table.columns.iter().position(|c| c.own == 1).unwrap() as u64;
        assert_eq!(table.pick(first * (u64::MAX / 3) + first, 0), 1);
    }

    #[test]
    fn draws_follow_the_weights() {
        let table = Alias::new(&[9, 1]).unwrap();
        let mut state = 1u64;
        let mut draw = || {
            // splitmix64: fixed, so that the test says the same every time
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let second = (0..100_000)
            .filter(|_| table.pick(draw(), draw()) == 1)
            .count();
        assert!((9_500..10_500).contains(&second), "{second}");
    }
}

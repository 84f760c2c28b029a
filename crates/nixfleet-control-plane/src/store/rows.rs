//! Many rows with one statement, in one text for both engines.
//!
//! Each statement costs its way to the engine and back, which for PostgreSQL is a wait and for SQLite a change of threads;
//! that is more than what a row costs. Pieces have few sizes, so that each text is prepared once for each connection and
//! stays so. What is written together may have each key once: PostgreSQL refuses to touch a row twice with one statement.

use std::fmt::Write;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

/// How many rows one statement has: the most, and then less. With the most columns that we have, 8, the first has 512
/// parameters. SQLite takes 32,766, but its driver finds each by its name in a list of them, so wide rows cost the square.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// A statement that waits for its values.
pub(super) type Filled = Query<'static, Any, AnyArguments>;

/// An `INSERT` of any number of rows.
#[derive(Debug)]
pub(super) struct Insert {
    /// From its beginning to `VALUES`.
    pub(super) head: &'static str,
    /// How many values a row has.
    pub(super) columns: usize,
    /// What comes after the rows.
    pub(super) tail: &'static str,
}

/// A statement about any number of keys.
#[derive(Debug)]
pub(super) struct Among {
    /// From its beginning to `IN`.
    pub(super) head: &'static str,
}

impl Insert {
    /// Writes `rows`, of which `fill` binds one.
    pub(super) async fn run<T>(
        &self,
        connection: &mut AnyConnection,
        rows: &[T],
        fill: impl Fn(Filled, &T) -> Filled,
    ) -> Result<(), sqlx::Error> {
        for piece in pieces(rows) {
            let text = self.text(piece.len());
            // The parts are ours, and the rest are numbers of places.
            let query = piece.iter().fold(sqlx::query(AssertSqlSafe(text)), &fill);
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    fn text(&self, rows: usize) -> String {
        let mut text = format!("{} ", self.head);
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { "), (" });
            places(&mut text, row * self.columns, self.columns);
        }
        text.push_str(") ");
        text.push_str(self.tail);
        text
    }
}

impl Among {
    /// The rows with these keys, in any order; none of a statement that only removes them.
    pub(super) async fn rows(
        &self,
        connection: &mut AnyConnection,
        keys: &[String],
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        let mut found = Vec::with_capacity(keys.len());
        for piece in pieces(keys) {
            let mut text = format!("{} (", self.head);
            places(&mut text, 0, piece.len());
            text.push(')');
            // As above.
            let query = sqlx::query(AssertSqlSafe(text));
            let query = piece.iter().fold(query, |query, key| query.bind(key.clone()));
            found.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }
}

/// The places of `count` values behind the first `before`.
fn places(text: &mut String, before: usize, count: usize) {
    for at in 1..=count {
        let comma = if at == 1 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}${}", before + at);
    }
}

/// All of it, in pieces of our sizes.
fn pieces<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
        let (piece, left) = rest.split_at(size);
        rest = left;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_places_go_on_from_row_to_row() {
        let insert =
            Insert { head: "INSERT INTO t (a, b) VALUES", columns: 2, tail: "ON CONFLICT DO NOTHING" };
        assert_eq!(insert.text(1), "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        assert_eq!(insert.text(2), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING");
    }

    proptest! {
        #[test]
        fn pieces_are_all_of_it_in_order_and_of_our_sizes(count in 0_usize..500) {
            let all: Vec<usize> = (0..count).collect();
            let cut: Vec<&[usize]> = pieces(&all).collect();
            prop_assert_eq!(cut.concat(), &all[..]);
            prop_assert!(cut.iter().all(|piece| SIZES.contains(&piece.len())));
        }
    }
}

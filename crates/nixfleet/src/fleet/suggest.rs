//! "Did you mean …?": the known name that is nearest to one that is not known.

/// The hint for `got` among `known`; `None` if nothing is near enough to be meant.
pub fn did_you_mean<'a>(got: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let far = allowed(got);
    let near = known.into_iter().filter_map(|name| Some((distance(got, name, far)?, name)));
    near.min().map(|(_, name)| format!("did you mean `{name}`?"))
}

/// How many letters may be wrong: one in three, and never so many that anything would be near.
fn allowed(got: &str) -> usize {
    (got.chars().count() / 3).clamp(1, 3)
}

/// The number of letters to insert, drop, replace or swap with their neighbour; `None` if more than `most`.
///
/// Names that differ only in case, `-` and `_` are as near as can be.
fn distance(one: &str, other: &str, most: usize) -> Option<usize> {
    let folded = |text: &str| -> Vec<char> {
        let fold = |c: char| if matches!(c, '-' | '_' | '.' | ' ') { '-' } else { c.to_ascii_lowercase() };
        text.chars().take(200).map(fold).collect()
    };
    let (one, other) = (folded(one), folded(other));
    if one.len().abs_diff(other.len()) > most {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, left) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, right) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(left != right);
            let mut best = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped = row > 0 && column > 0 && one[row - 1] == *right && *left == other[column - 1];
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().filter(|found| *found <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let known = ["channel", "system", "key", "keys", "max_in_flight"];
        for (got, want) in [
            ("chanel", Some("channel")),
            ("chnanel", Some("channel")),
            ("maxInFlight", Some("max_in_flight")),
            ("max-in-flight", Some("max_in_flight")),
            ("kez", Some("key")),
            ("nothing-like-it", None),
            ("", None),
        ] {
            let want = want.map(|name| format!("did you mean `{name}`?"));
            assert_eq!(did_you_mean(got, known), want, "{got}");
        }
    }

    #[test]
    fn a_short_name_is_not_mistaken_for_any_other() {
        assert_eq!(did_you_mean("x", ["web", "db"]), None);
        assert_eq!(did_you_mean("web2", ["web-1"]), None);
    }
}

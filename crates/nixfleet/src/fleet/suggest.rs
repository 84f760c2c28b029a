//! "Did you mean …?": the known name that is nearest to one that is not known.

use nixfleet_sys::text::nearest;

/// The hint for `got` among `known`; `None` if nothing is near enough to be meant.
pub fn did_you_mean<'a>(got: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(got, known).map(|name| format!("did you mean `{name}`?"))
}

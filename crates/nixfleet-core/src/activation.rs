//! One activation.

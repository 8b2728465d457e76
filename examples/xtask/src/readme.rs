//! The examples of the repository's readme, which compile as doctests of this crate.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

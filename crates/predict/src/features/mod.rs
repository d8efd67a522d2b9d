//! What the models see: series as rows of numbers without a unit.
//!
//! [`series`] describes a series by itself, relative to its own mean of 24 hours; [`unit`] a unit
//! relative to its capacity. Neither says how large the load is: that lets one model serve all, and
//! a tenant that grew tenfold looks like any other. What is not known is NaN.

pub mod series;
pub mod unit;

//! Mixtures: how often each of several sources is drawn from, and the draws themselves.
//!
//! [`Spec`] says what is wanted, [`Spec::leaves`] gives each source's share, [`Mixture`] draws, and [`Plan`] tells how
//! often each row is taken by a stretch of the draws without holding them.

mod draws;
mod joined;
mod plan;
mod rates;

pub use draws::{Mixture, Position};
pub use joined::Joined;
pub use plan::{Plan, Written, count_rows};
pub use rates::{Exhaust, Leaf, Node, Rate, Spec, Unit};

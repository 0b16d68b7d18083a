//! The dashboard, as browsers get it.

mod served;

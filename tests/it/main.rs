//! The one integration binary: whole ways through real edges. One module a concern, helpers in `support`.

mod listener;
mod operations;
mod source;
mod support;

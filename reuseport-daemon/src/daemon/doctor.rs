//! In the making.
use super::driver::Driver;
use crate::api::{
    Replier, Scope,
    wire::{Doctor, Reply},
};
impl Driver {
    pub(super) fn examine(&self, scope: Scope, name: Option<&str>, replier: Replier) {
        let _ = (scope, name);
        replier.finish(Ok(Reply::Doctor(Doctor::default())));
    }
}

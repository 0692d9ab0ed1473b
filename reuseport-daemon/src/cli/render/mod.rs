//! What people see: every function takes a reply and returns text that ends with a newline, unless
//! it says otherwise. Colours are escape sequences; whoever writes them takes them out where they
//! do not belong.

mod demo;
mod doctor;
mod migration;
mod short;
mod status;
mod style;
mod table;

pub(super) use self::{
    demo::{cell, cells},
    doctor::doctor,
    migration::{migration, progress},
    short::{changed, error, migrate_req, registered},
    status::status,
};

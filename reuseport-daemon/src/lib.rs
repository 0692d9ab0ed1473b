//! reuseportd: moves a live TCP service from one process to another without losing a connection.
//!
//! Where things are, and which way they may know of each other, is in ARCHITECTURE.md.

pub mod api;
mod chain;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod domain;
pub mod lab;
pub mod steering;
pub mod sys;

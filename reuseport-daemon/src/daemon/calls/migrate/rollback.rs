//! A service moves back.

use super::super::changed;
use crate::{
    api::{Answer, Scope},
    daemon::{driver::Driver, failure},
    domain,
};

impl Driver {
    pub(in crate::daemon) fn roll_back(&mut self, name: &str) -> Answer {
        let managed = self.service(Scope::All, name)?;
        let name = managed.name().clone();
        let decision = domain::roll_back(&managed.state)?;
        let left = decision
            .end
            .as_ref()
            .map(|(migration, _)| managed.state.label(migration.to));
        self.apply(&name, decision)
            .map_err(|error| failure::not_performed(&error, None))?;
        Ok(changed(
            true,
            match left {
                Some(left) => format!(
                    "the migration of {name} is rolled back; let {left} run on until it has \
                     answered what reached it"
                ),
                None => format!("the migration of {name} is rolled back"),
            },
        ))
    }
}

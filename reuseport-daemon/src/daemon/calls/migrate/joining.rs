//! A migration is asked for that is under way already.

use super::wanted::{Target, Wanted};
use crate::{
    daemon::{driver::Driver, migration_run::Run},
    domain::ServiceName,
};

impl Driver {
    /// The migration that is under way, if it is what is asked for and nobody waits for it: whoever
    /// began it has gone, or the daemon that was asked has.
    pub(super) fn unattended(
        &mut self,
        name: &ServiceName,
        target: &Target,
        wanted: &Wanted,
    ) -> Option<&mut Run> {
        let state = &self.services.get(name)?.state;
        let migration = state.migration.as_ref()?;
        let same_target = match target {
            Target::Label(label) => state.label(migration.to) == *label,
            Target::Pid { pid, .. } => state
                .instances
                .get(&migration.to)
                .is_some_and(|it| it.process.pid == *pid),
            // Where that is the unit's, its processes would tell; its label does unless it was given
            // another one.
            Target::Unit { unit, label } => {
                let label = label.clone().or_else(|| unit.label());
                label.is_some_and(|it| it == state.label(migration.to))
            }
        };
        let options = &wanted.options;
        let same = same_target
            && !wanted.dry_run
            && options.drain == migration.options.drain
            && options.retire == migration.options.retire;
        let run = self.runs.get_mut(name)?;
        (same && run.is_unattended()).then_some(run)
    }
}

//! What a server's listeners are set to, for those that connections wait in.

use std::os::fd::AsFd;

use super::Lot;
use crate::{
    domain::{Generation, InstanceState, Service},
    sys::{parking::Template, passed::Passed},
};

impl Lot {
    /// Takes note of what an instance's listener is set to, once for each group: its workers' are
    /// set the same.
    pub(in crate::daemon) fn learn(
        &mut self,
        generation: Generation,
        group: usize,
        listener: &Passed,
    ) {
        self.templates
            .entry((generation, group))
            .or_insert_with(|| Template::of(listener.as_fd()));
    }

    /// What a group's parking listener is to be set to, as far as it is known.
    pub(super) fn template(&self, state: &Service, group: usize) -> Option<&Template> {
        let mut here = self.templates.iter().filter(|((_, it), _)| *it == group);
        let serving = state.in_state(InstanceState::Serving).next_back();
        let of_serving = serving.and_then(|it| self.templates.get(&(it, group)));
        of_serving
            .or_else(|| here.next_back().map(|(_, template)| template))
            .or_else(|| self.left_templates.get(&group))
    }
}

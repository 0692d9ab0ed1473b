//! Who may do what. Root and the members of one group may do everything; any other user may see,
//! and register and receive for, the services whose sockets belong to that user.

use super::{Caller, wire::Request};

/// The group whose members may do everything.
pub const ADMIN_GROUP: &str = "reuseportd";

/// The services that a call may be about. Whose a service is, only the driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// Those whose sockets belong to this user. A call that names a process may only name one of
    /// this user, too: the daemon must not reach into others' processes on a user's behalf.
    OwnedBy(u32),
}

/// What `caller` may ask for with `request`; none where it may not ask at all. `admin_group` is the
/// id of [`ADMIN_GROUP`], where this machine has it.
#[must_use]
pub fn scope(caller: &Caller, request: &Request, admin_group: Option<u32>) -> Option<Scope> {
    let admin = caller.uid == 0
        || admin_group.is_some_and(|group| caller.gid == group || caller.groups.contains(&group));
    if admin {
        return Some(Scope::All);
    }
    match request {
        Request::Register(_)
        | Request::Receive(_)
        | Request::Acknowledge(_)
        | Request::Status(_)
        | Request::Doctor(_) => Some(Scope::OwnedBy(caller.uid)),
        Request::AddService(_)
        | Request::RemoveService(_)
        | Request::Migrate(_)
        | Request::Rollback(_)
        | Request::Release(_)
        | Request::MigrateReq(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{
        Acknowledge, AddService, Migrate, MigrateReq, Register, Release, ServiceFilter, ServiceRef,
    };

    const GROUP: u32 = 321;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller {
            uid,
            gid,
            groups: groups.to_vec(),
            process: None,
        }
    }

    fn service() -> ServiceRef {
        ServiceRef {
            service: "game".to_owned(),
        }
    }

    fn for_admins() -> Vec<Request> {
        vec![
            Request::AddService(AddService::default()),
            Request::RemoveService(service()),
            Request::Migrate(Migrate::default()),
            Request::Rollback(service()),
            Request::Release(Release {
                service: "game".to_owned(),
                label: "v1".to_owned(),
            }),
            Request::MigrateReq(MigrateReq {
                set: None,
                netns: None,
            }),
        ]
    }

    fn for_owners() -> Vec<Request> {
        vec![
            Request::Register(Register {
                service: "game".to_owned(),
                pid: Some(1),
                unit: None,
                label: None,
            }),
            Request::Receive(service()),
            Request::Acknowledge(Acknowledge {
                service: "game".to_owned(),
                id: 1,
            }),
            Request::Status(ServiceFilter::default()),
            Request::Doctor(ServiceFilter::default()),
        ]
    }

    #[test]
    fn root_and_the_group_may_do_everything() {
        let admins = [
            caller(0, 0, &[]),
            caller(1000, GROUP, &[]),
            caller(1000, 1000, &[4, GROUP]),
        ];
        for admin in admins {
            for request in for_admins().iter().chain(&for_owners()) {
                assert_eq!(scope(&admin, request, Some(GROUP)), Some(Scope::All));
            }
        }
    }

    #[test]
    fn others_see_register_and_receive_what_is_theirs() {
        let user = caller(1000, 1000, &[4]);
        for request in &for_owners() {
            let owned = Some(Scope::OwnedBy(1000));
            assert_eq!(scope(&user, request, Some(GROUP)), owned);
        }
        for request in &for_admins() {
            assert_eq!(scope(&user, request, Some(GROUP)), None);
        }
    }

    #[test]
    fn a_group_that_is_absent_has_no_members() {
        let user = caller(1000, GROUP, &[GROUP]);
        let request = Request::Status(ServiceFilter::default());
        assert_eq!(scope(&user, &request, None), Some(Scope::OwnedBy(1000)));
    }
}

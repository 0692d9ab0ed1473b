//! Holds the interface's text and the wire types together: one full sample of every type is
//! compared with the text, and then read again with each of its fields left out.

mod samples;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use zlink_idl::{Interface, Type};

use self::samples::{
    counters, counts, finding, group, instance, listener, migration, outcomes, parking, progress,
    reason, result, service, text,
};
use super::{
    error_reply::ErrorReply,
    wire::{
        Acknowledge, Acknowledged, AddService, Changed, Doctor, Handed, Migrate, MigrateReq,
        MigrateReqState, MigrationReply, Register, Registered, Release, ServiceFilter, ServiceRef,
        Status,
    },
};

const TEXT: &str = include_str!("io.reuseportd.varlink");

/// An object of the interface: its fields by name.
type Fields<'a> = BTreeMap<&'a str, &'a Type<'a>>;

/// Checks samples against the text, and remembers which of its objects had one.
struct Checker<'a> {
    objects: BTreeMap<String, Fields<'a>>,
    seen: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    fn new(interface: &'a Interface<'a>) -> Self {
        let mut objects = BTreeMap::new();
        for custom in interface.custom_types() {
            let object = custom.as_object().expect("the interface has no enums");
            let fields = object.fields().map(|f| (f.name().as_str(), f.ty()));
            objects.insert(object.name().to_string(), fields.collect());
        }
        for method in interface.methods() {
            let inputs = method.inputs().map(|f| (f.name().as_str(), f.ty()));
            objects.insert(format!("{}()", method.name()), inputs.collect());
            let outputs = method.outputs().map(|f| (f.name().as_str(), f.ty()));
            objects.insert(format!("{}->", method.name()), outputs.collect());
        }
        for error in interface.errors() {
            let fields = error.fields().map(|f| (f.name().as_str(), f.ty()));
            objects.insert(format!("{}!", error.name()), fields.collect());
        }
        Self {
            objects,
            seen: BTreeSet::new(),
        }
    }

    /// `sample` must have every field that there is.
    fn check<T: Serialize + DeserializeOwned>(&mut self, name: &str, sample: &T) {
        let value = serde_json::to_value(sample).expect("serialises");
        let object = value.as_object().expect("an object").clone();
        self.object(name, &object);
        for (field, ty) in &self.objects[name] {
            let mut without = object.clone();
            without.remove(*field);
            let reads = serde_json::from_value::<T>(Value::Object(without)).is_ok();
            let optional = ty.as_optional().is_some();
            assert_eq!(reads, optional, "may {name}.{field} be left out?");
        }
        self.seen.insert(name.to_owned());
    }

    fn object(&self, name: &str, object: &Map<String, Value>) {
        let fields = &self.objects[name];
        let written: BTreeSet<_> = fields.keys().copied().collect();
        let serialised: BTreeSet<_> = object.keys().map(String::as_str).collect();
        assert_eq!(written, serialised, "the fields of {name}");
        for (field, ty) in fields {
            self.value(&format!("{name}.{field}"), ty, &object[*field]);
        }
    }

    fn value(&self, at: &str, ty: &Type<'_>, value: &Value) {
        if let Some(inner) = ty.as_optional() {
            self.value(at, inner.inner(), value);
        } else if let Some(inner) = ty.as_array() {
            let items = value.as_array().expect(at);
            assert!(!items.is_empty(), "{at} needs a sample");
            for item in items {
                self.value(at, inner.inner(), item);
            }
        } else if let Some(custom) = ty.as_custom() {
            self.object(custom.as_str(), value.as_object().expect(at));
        } else {
            let fits = match ty {
                Type::Bool => value.is_boolean(),
                Type::Int => value.is_i64(),
                Type::String => value.is_string(),
                Type::Float
                | Type::ForeignObject
                | Type::Any
                | Type::Optional(_)
                | Type::Array(_)
                | Type::Map(_)
                | Type::Custom(_)
                | Type::Enum(_)
                | Type::Object(_) => panic!("{at}: {ty} is not used so far"),
            };
            assert!(fits, "{at}: {value} is no {ty}");
        }
    }
}

fn check_types(checker: &mut Checker<'_>) {
    checker.check("OutcomeCounts", &counts());
    checker.check("Outcomes", &outcomes());
    checker.check("NetCounters", &counters());
    checker.check("Progress", &progress());
    checker.check("MigrationResult", &result());
    checker.check("ParkingStatus", &parking());
    checker.check("GroupStatus", &group());
    checker.check("ListenerStatus", &listener());
    checker.check("InstanceStatus", &instance());
    checker.check("MigrationStatus", &migration());
    checker.check("ServiceStatus", &service());
    checker.check("Finding", &finding());
}

fn check_parameters(checker: &mut Checker<'_>) {
    let named = ServiceRef {
        service: text("game"),
    };
    let filter = ServiceFilter {
        service: Some(text("game")),
    };
    let add = AddService {
        name: text("game"),
        listen: vec![text("0.0.0.0:7777")],
        user: Some(text("game")),
        netns: Some(text("/run/netns/a")),
        slots: Some(64),
        park: true,
        park_timeout_ms: Some(1),
        instances: Some(text("game@*.service")),
    };
    checker.check("AddService()", &add);
    checker.check("RemoveService()", &named);
    let register = Register {
        service: text("game"),
        pid: Some(1),
        unit: Some(text("game@v1.service")),
        label: Some(text("v1")),
    };
    checker.check("Register()", &register);
    let migrate = Migrate {
        service: text("game"),
        to: Some(text("v2")),
        to_pid: Some(1),
        to_unit: Some(text("game@v2.service")),
        label: Some(text("v2")),
        drain: Some(text("owner")),
        retire: Some(text("keep")),
        drain_timeout_ms: Some(1),
        wait_sessions_ms: Some(2),
        dry_run: true,
        allow_mismatch: Some(vec![text("tcp-save-syn")]),
    };
    checker.check("Migrate()", &migrate);
    checker.check("Rollback()", &named);
    let release = Release {
        service: text("game"),
        label: text("v1"),
    };
    checker.check("Release()", &release);
    checker.check("Receive()", &named);
    let acknowledge = Acknowledge {
        service: text("game"),
        id: 1,
    };
    checker.check("Acknowledge()", &acknowledge);
    checker.check("Status()", &filter);
    let migrate_req = MigrateReq {
        set: Some(true),
        netns: Some(text("/run/netns/a")),
    };
    checker.check("MigrateReq()", &migrate_req);
    checker.check("Doctor()", &filter);
}

fn check_replies(checker: &mut Checker<'_>) {
    let changed = Changed {
        changed: true,
        message: text("done"),
    };
    for method in ["AddService", "RemoveService", "Rollback", "Release"] {
        checker.check(&format!("{method}->"), &changed);
    }
    let registered = Registered {
        changed: true,
        label: text("v1"),
        generation: 1,
        state: text("serving"),
        listeners: 1,
    };
    checker.check("Register->", &registered);
    let reply = MigrationReply {
        progress: Some(progress()),
        result: Some(result()),
    };
    checker.check("Migrate->", &reply);
    let handed = Handed {
        id: 1,
        listen: text("0.0.0.0:7777"),
        peer: text("10.0.0.1:4321"),
    };
    checker.check("Receive->", &handed);
    checker.check("Acknowledge->", &Acknowledged { yours: true });
    let status = Status {
        services: vec![service()],
    };
    checker.check("Status->", &status);
    let state = MigrateReqState {
        enabled: Some(true),
        supported: true,
        changed: true,
    };
    checker.check("MigrateReq->", &state);
    let doctor = Doctor {
        findings: vec![finding()],
    };
    checker.check("Doctor->", &doctor);
}

fn check_errors(checker: &mut Checker<'_>) {
    let errors = [
        ErrorReply::Refused(reason()),
        ErrorReply::Unsupported(reason()),
        ErrorReply::NotPermitted(reason()),
        ErrorReply::Failed(reason()),
        ErrorReply::MalformedRequest(reason()),
        ErrorReply::RequestTooLarge(reason()),
    ];
    for error in errors {
        let value = serde_json::to_value(error).expect("serialises");
        let name = value["error"].as_str().expect("a name");
        let name = name.strip_prefix("io.reuseportd.").expect("ours");
        checker.check(&format!("{name}!"), &reason());
    }
}

#[test]
fn the_text_and_the_types_agree() {
    let interface = Interface::try_from(TEXT).expect("the text is Varlink");
    assert_eq!(interface.name().as_str(), "io.reuseportd");
    let mut checker = Checker::new(&interface);
    check_types(&mut checker);
    check_parameters(&mut checker);
    check_replies(&mut checker);
    check_errors(&mut checker);
    let written: BTreeSet<_> = checker.objects.into_keys().collect();
    assert_eq!(written, checker.seen);
}

#[test]
fn every_interface_that_is_served_is_varlink() {
    let text = include_str!("org.varlink.service.varlink");
    let interface = Interface::try_from(text).expect("the text is Varlink");
    assert_eq!(interface.name().as_str(), "org.varlink.service");
    assert_eq!(interface.methods().count(), 2);
}

//! From a method's name and parameters to what is asked.

use serde::Deserialize;
use serde_json::{Map, Value};
use zlink::varlink_service::Error;

use super::parameters;
use crate::api::wire::{Request, ServiceFilter, ServiceRef};

/// The interface of this project.
pub(super) const INTERFACE: &str = "io.reuseportd";
/// The interface that every Varlink service has.
pub(super) const SERVICE_INTERFACE: &str = "org.varlink.service";

/// The text of every interface that is served.
pub(super) const DESCRIPTIONS: [(&str, &str); 2] = [
    (INTERFACE, include_str!("../io.reuseportd.varlink")),
    (
        SERVICE_INTERFACE,
        include_str!("../org.varlink.service.varlink"),
    ),
];

/// A call's method and parameters, before they mean anything.
#[derive(Debug, Deserialize)]
pub(super) struct RawCall {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// What a call asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `GetInfo`
    Info,
    /// `GetInterfaceDescription`: the text.
    Description(&'static str),
    /// One for the driver.
    Driver(Request),
}

impl RawCall {
    pub(super) fn method(&self) -> &str {
        &self.method
    }

    /// Finds the method and reads its parameters.
    pub(super) fn ask(&self) -> Result<Asked, Error<'static>> {
        let parameters = self.parameters.clone().unwrap_or_default();
        match self.method.rsplit_once('.') {
            Some((INTERFACE, member)) => {
                let request = request(member, parameters);
                request
                    .unwrap_or_else(|| Err(unknown(&self.method)))
                    .map(Asked::Driver)
            }
            Some((SERVICE_INTERFACE, "GetInfo")) => Ok(Asked::Info),
            Some((SERVICE_INTERFACE, "GetInterfaceDescription")) => description(parameters),
            Some((SERVICE_INTERFACE, _)) | None => Err(unknown(&self.method)),
            Some((interface, _)) => Err(Error::InterfaceNotFound {
                interface: interface.to_owned().into(),
            }),
        }
    }
}

fn unknown(method: &str) -> Error<'static> {
    Error::MethodNotFound {
        method: method.to_owned().into(),
    }
}

/// None where there is no such method.
fn request(member: &str, given: Map<String, Value>) -> Option<Result<Request, Error<'static>>> {
    let request = match member {
        "AddService" => parameters::read(given).map(Request::AddService),
        "RemoveService" => parameters::read::<ServiceRef>(given).map(Request::RemoveService),
        "Register" => parameters::read(given).map(Request::Register),
        "Migrate" => parameters::read(given).map(Request::Migrate),
        "Rollback" => parameters::read::<ServiceRef>(given).map(Request::Rollback),
        "Release" => parameters::read(given).map(Request::Release),
        "Receive" => parameters::read::<ServiceRef>(given).map(Request::Receive),
        "Acknowledge" => parameters::read(given).map(Request::Acknowledge),
        "Status" => parameters::read::<ServiceFilter>(given).map(Request::Status),
        "MigrateReq" => parameters::read(given).map(Request::MigrateReq),
        "Doctor" => parameters::read::<ServiceFilter>(given).map(Request::Doctor),
        _ => return None,
    };
    Some(request.map_err(invalid))
}

fn description(given: Map<String, Value>) -> Result<Asked, Error<'static>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        interface: String,
    }
    let Parameters { interface } = parameters::read(given).map_err(invalid)?;
    DESCRIPTIONS
        .iter()
        .find(|(name, _)| *name == interface)
        .map(|(_, text)| Asked::Description(text))
        .ok_or(Error::InterfaceNotFound {
            interface: interface.into(),
        })
}

fn invalid(misfit: parameters::Misfit) -> Error<'static> {
    Error::InvalidParameter {
        parameter: misfit.parameter.into(),
    }
}

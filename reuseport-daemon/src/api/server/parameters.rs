//! Parameters into types, with the name of the one that does not fit.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, value::MapAccessDeserializer,
};
use serde_json::{Map, Value};

/// The parameter that does not fit. `InvalidParameter` has no room for why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) parameter: String,
}

/// Reads `T` from the parameters of a call.
pub(super) fn read<T: DeserializeOwned>(parameters: Map<String, Value>) -> Result<T, Misfit> {
    T::deserialize(MapAccessDeserializer::new(Parameters {
        rest: parameters.into_iter(),
        next: None,
    }))
}

/// serde names a field that is missing or unknown, but not one whose value has the wrong type; so
/// the values are handed over one by one.
struct Parameters {
    rest: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Parameters {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        let found = seed.deserialize(key.as_str().into_deserializer())?;
        self.next = Some((key, value));
        Ok(Some(found))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (parameter, value) = self.next.take().unwrap_or_default();
        seed.deserialize(value).map_err(|_| Misfit { parameter })
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {:?} does not fit", self.parameter)
    }
}

impl std::error::Error for Misfit {}

impl serde::de::Error for Misfit {
    /// Only for types that are no structs; those of the interface all are.
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            parameter: message.to_string(),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            parameter: field.to_owned(),
        }
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self {
            parameter: field.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::wire::Register;

    fn register(parameters: Value) -> Result<Register, String> {
        let Value::Object(parameters) = parameters else {
            unreachable!("the tests pass objects");
        };
        read(parameters).map_err(|misfit| misfit.parameter)
    }

    #[test]
    fn the_misfit_is_named() {
        assert_eq!(
            register(json!({"service": "game", "pid": 7})),
            Ok(Register {
                service: "game".to_owned(),
                pid: Some(7),
                ..Register::default()
            })
        );
        assert!(register(json!({"service": "game", "pid": null})).is_ok());
        let misfits = [
            (json!({"service": "game", "pid": "7"}), "pid"),
            (json!({"service": "game", "pid": -1}), "pid"),
            (json!({"service": "game", "pid": 1e3}), "pid"),
            (json!({"service": null}), "service"),
            (json!({"pid": 7}), "service"),
            (json!({"service": "game", "colour": 1}), "colour"),
        ];
        for (parameters, name) in misfits {
            assert_eq!(register(parameters), Err(name.to_owned()));
        }
    }
}

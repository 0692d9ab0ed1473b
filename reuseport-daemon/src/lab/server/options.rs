//! How a lab server is told what to be.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, ValueEnum};

use super::socket_option::SocketOption;
use crate::{domain::Address, lab::wire::Tag};

/// What a lab server is to be.
#[derive(Clone, Debug, Parser)]
#[command(about = "A server for tests and the demo, which answers with its label")]
pub struct Options {
    /// What to answer with
    #[arg(long)]
    pub label: Tag,
    /// Where to listen, as IP:PORT[,v6only][,device=NAME]
    #[arg(long = "listen", value_name = "ADDR", required = true)]
    pub listen: Vec<Address>,
    /// How many workers, each with listeners of its own
    #[arg(long, default_value_t = 1)]
    pub workers: u16,
    /// How connections are accepted
    #[arg(long, value_enum, default_value_t = Acceptor::Level)]
    pub acceptor: Acceptor,
    /// How many connections may wait for each listener to accept them
    #[arg(long, default_value_t = 4096)]
    pub backlog: u16,
    /// Leave `SO_REUSEPORT` unset
    #[arg(long)]
    pub without_reuse_port: bool,
    /// Take connections that bring data in their SYN, that many at a time (`TCP_FASTOPEN`)
    #[arg(long, value_name = "WAITING")]
    pub fast_open: Option<u16>,
    /// Accept connections only once they have brought data (`TCP_DEFER_ACCEPT`)
    #[arg(long, value_name = "SECONDS")]
    pub defer_accept: Option<u16>,
    /// Have the listener passed by whoever answers there, instead of opening one at each address
    #[arg(long, value_name = "SOCKET")]
    pub passed_by: Option<PathBuf>,
    /// Set a socket option before listening, as LEVEL:OPTION:HEX, the numbers and bytes of setsockopt
    #[arg(long = "set", value_name = "OPTION")]
    pub set: Vec<SocketOption>,
    /// Receive the connections of that service, which reuseportd hands over
    #[arg(long, value_name = "SERVICE", requires = "control")]
    pub receive: Option<String>,
    /// Where that reuseportd answers
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// What becomes of the listeners on `exit`, at the end of the input and on SIGTERM
    #[arg(long, value_enum, default_value_t = Stop::Close)]
    pub at_stop: Stop,
}

/// How a server waits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acceptor {
    /// epoll, level-triggered.
    Level,
    /// epoll, edge-triggered.
    Edge,
    /// A thread in a blocking `accept` for each listener.
    Blocking,
}

/// What a server does with its listeners when it is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stop {
    /// Closes them, whatever waits in their queues.
    Close,
    /// Accepts what waits in their queues until there is nothing, then closes them.
    DrainClose,
    /// Leaves them open until the process ends, and accepts no more.
    Linger,
}

impl Options {
    /// A server with the defaults of the command line.
    #[must_use]
    pub fn new(label: Tag, listen: Vec<Address>) -> Self {
        Self {
            label,
            listen,
            workers: 1,
            acceptor: Acceptor::Level,
            backlog: 4096,
            without_reuse_port: false,
            fast_open: None,
            defer_accept: None,
            passed_by: None,
            set: Vec::new(),
            receive: None,
            control: None,
            at_stop: Stop::Close,
        }
    }

    /// Reads the command line; prints the help or what is wrong with it, and exits, where there is
    /// nothing to run.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::parse()
    }

    /// The command line that gives these options, without the program's name.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: String| {
            arguments.push(OsString::from(format!("--{name}={value}")));
        };
        option("label", self.label.to_string());
        for address in &self.listen {
            option("listen", address.to_string());
        }
        option("workers", self.workers.to_string());
        option("acceptor", name_of(&self.acceptor));
        option("backlog", self.backlog.to_string());
        if let Some(waiting) = self.fast_open {
            option("fast-open", waiting.to_string());
        }
        if let Some(seconds) = self.defer_accept {
            option("defer-accept", seconds.to_string());
        }
        if let Some(socket) = &self.passed_by {
            option("passed-by", socket.display().to_string());
        }
        for set in &self.set {
            option("set", set.to_string());
        }
        if let Some(service) = &self.receive {
            option("receive", service.clone());
        }
        if let Some(control) = &self.control {
            option("control", control.display().to_string());
        }
        option("at-stop", name_of(&self.at_stop));
        if self.without_reuse_port {
            arguments.push("--without-reuse-port".into());
        }
        arguments
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_all_that_the_options_do() {
        let plain = Options::new(
            "v1".parse().expect("label"),
            vec!["127.0.0.1:7777".parse().expect("address")],
        );
        let every = Options {
            listen: vec![
                "0.0.0.0:1".parse().expect("v4"),
                "[::]:1,v6only".parse().expect("v6"),
            ],
            workers: 3,
            acceptor: Acceptor::Blocking,
            backlog: 7,
            without_reuse_port: true,
            fast_open: Some(16),
            defer_accept: Some(2),
            passed_by: Some("/run/listener".into()),
            set: vec!["1:36:07000000".parse().expect("option")],
            receive: Some("game".to_owned()),
            control: Some("/run/reuseportd/control".into()),
            at_stop: Stop::DrainClose,
            ..plain.clone()
        };
        for options in [plain, every] {
            let line = [OsString::from("server")]
                .into_iter()
                .chain(options.arguments());
            let parsed = Options::try_parse_from(line).expect("own command line");
            assert_eq!(format!("{parsed:?}"), format!("{options:?}"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            &["server", "--label=v1"][..],
            &["server", "--listen=127.0.0.1:1"],
            &["server", "--label=a b", "--listen=127.0.0.1:1"],
            &["server", "--label=v1", "--listen=localhost"],
        ] {
            assert!(Options::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}

//! Anything at all on the control socket of a real daemon. It answers what can be answered, and is
//! afterwards as it was before.

mod input;

use std::{
    env, fs,
    fs::File,
    io::{self, ErrorKind, Read, Write as _},
    net::{Shutdown, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use reuseport_daemon::{lab::world::World, sys::unix_socket};
use reuseport_tests::{
    machine::scaled,
    stage::{DEADLINE, Stage, any_v4, v4},
    traces::Traces,
    wait::until,
};
use serde_json::Value;

use self::input::{Ending, Input, inputs};

/// How many inputs, where it shall not be [`USUAL`].
const INPUTS: &str = "REUSEPORTD_FUZZ_INPUTS";

const USUAL: u32 = 20_000;

/// Inputs between two looks at the daemon.
const BATCH: u32 = 2_000;

/// Clients at a time.
const CLIENTS: u64 = 4;

/// How much more the daemon may use than after the first batch, in KiB: allocators keep some.
const GROWTH_KIB: u64 = 8 << 10;

/// Works beside the driver, closers, and what a namespace is entered with.
const THREADS_MEANWHILE: u64 = 32;

pub(crate) fn control_socket() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let total: u64 = match env::var(INPUTS) {
        Ok(number) => number.parse().context(INPUTS)?,
        Err(_) => scaled(USUAL)?.into(),
    };
    let batch_size = u64::from(scaled(BATCH)?);
    let started = Instant::now();
    let before = Traces::of(&stage)?;
    let threads = usage(&stage, "Threads:")?;
    let (mut answers, mut memory) = (0, None);
    for batch in 0..total.div_ceil(batch_size) {
        answers +=
            throw(&stage, batch, batch_size / CLIENTS).with_context(|| format!("batch {batch}"))?;
        before
            .come_back(|| Traces::of(&stage))
            .with_context(|| format!("batch {batch}"))?;
        let now = usage(&stage, "VmRSS:")?;
        let first = *memory.get_or_insert(now);
        ensure!(
            now <= first + GROWTH_KIB,
            "batch {batch}: {first} KiB became {now}"
        );
        let meanwhile = usage(&stage, "Threads:")?;
        ensure!(
            meanwhile <= threads + THREADS_MEANWHILE,
            "batch {batch}: {meanwhile} threads"
        );
    }
    until("idle threads have ended", || {
        Ok(usage(&stage, "Threads:")? <= threads)
    })?;
    let log = stage.daemon().log();
    ensure!(!log.contains("panicked"), "{log}");
    let _ = writeln!(
        io::stderr(),
        "{total} inputs, {answers} answers, {:.0} s, {:?} KiB after the first batch, {} at the end",
        started.elapsed().as_secs_f32(),
        memory,
        usage(&stage, "VmRSS:")?,
    );
    ensure!(
        answers > total / 4,
        "{answers} answers are too few to have shown anything"
    );
    Ok(())
}

/// One batch, so many inputs from each of several clients; how many answers there were.
fn throw(stage: &Stage, batch: u64, inputs: u64) -> Result<u64> {
    let socket = stage.home().socket();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let socket = &socket;
                scope.spawn(move || throw_all(socket, batch * CLIENTS + client, inputs))
            })
            .collect();
        let mut answers = 0;
        for client in clients {
            answers += client.join().map_err(|_| anyhow!("a panic"))??;
        }
        Ok(answers)
    })
}

fn throw_all(socket: &Path, seed: u64, count: u64) -> Result<u64> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let kinds = descriptors()?;
    let strategy = inputs(kinds.len());
    let (mut answers, mut silent) = (0, Vec::new());
    for number in 0..count {
        let tree = strategy
            .new_tree(&mut runner)
            .map_err(|it| anyhow!("{it}"))?;
        let input = tree.current();
        let (answered, stream) = throw_one(socket, &input, &kinds)
            .with_context(|| format!("input {number} of seed {seed}: {input:?}"))?;
        answers += answered;
        silent.extend(stream);
    }
    Ok(answers)
}

/// Descriptors that no service has a use for.
fn descriptors() -> Result<Vec<OwnedFd>> {
    let (near, _far) = UnixStream::pair()?;
    let (reader, _writer) = io::pipe()?;
    Ok(vec![
        File::open("/dev/null")?.into(),
        near.into(),
        reader.into(),
        // It listens where the service is not.
        TcpListener::bind("127.0.0.1:0")?.into(),
    ])
}

fn throw_one(socket: &Path, input: &Input, kinds: &[OwnedFd]) -> Result<(u64, Option<UnixStream>)> {
    let stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    for write in &input.writes {
        let fds: Vec<BorrowedFd<'_>> = write
            .descriptors
            .iter()
            .map(|it| kinds[*it].as_fd())
            .collect();
        if !send(&stream, &write.bytes, &fds)? {
            break;
        }
    }
    match input.ending {
        Ending::Read => {
            // It fails where the daemon has closed already.
            let _ = stream.shutdown(Shutdown::Write);
            Ok((read_answers(stream)?, None))
        }
        Ending::Leave => Ok((0, None)),
        Ending::Stay => Ok((0, Some(stream))),
    }
}

/// Sends all of it; false where the daemon has had enough.
fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool> {
    let mut sent = 0;
    while sent < bytes.len() {
        let fds = if sent == 0 { fds } else { &[] };
        match unix_socket::send(stream, &bytes[sent..], fds) {
            Ok(more) => sent += more,
            Err(error) if has_gone(&error) => return Ok(false),
            // It reads no further call before this one's answers are taken, which nobody does here.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("send"),
        }
    }
    Ok(true)
}

/// Reads to the end; how many answers there were, each of them one.
fn read_answers(mut stream: UnixStream) -> Result<u64> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        // It was closed with bytes that it had not read.
        Err(error) if has_gone(&error) => {}
        Err(error) => return Err(error).context("read the answers"),
    }
    let mut answers = 0;
    for answer in all.split(|byte| *byte == 0).filter(|it| !it.is_empty()) {
        let value: Value = serde_json::from_slice(answer)
            .with_context(|| String::from_utf8_lossy(answer).into_owned())?;
        ensure!(
            value.get("error").is_some() || value.get("parameters").is_some(),
            "{value}"
        );
        answers += 1;
    }
    Ok(answers)
}

fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

/// A number of the daemon's `/proc/PID/status`.
fn usage(stage: &Stage, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.daemon().pid()))?;
    let line = status.lines().find_map(|it| it.strip_prefix(field));
    let number = line
        .and_then(|it| it.split_whitespace().next())
        .context(field.to_owned())?;
    Ok(number.parse()?)
}

//! Which system calls change something that outlives the daemon, or that others see.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};
use nix::{errno::Errno, unistd::Pid};
use reuseport_daemon::sys::process::Process;
use rustix::net::{
    AddressFamily, SocketType,
    sockopt::{socket_domain, socket_type},
};

/// Calls that change nothing but the process itself, and those that only look. Whatever is not here
/// and is not looked at more closely below is an effect.
const HARMLESS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    // A duplicate's close changes something where the server has gone meanwhile. It is done beside
    // the driver, at any time: what comes before and after it is killed at anyway.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getpeername,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    // Asks a descriptor for its namespace's kind.
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    // Of a thread that ends soon after.
    libc::SYS_setns,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
];

/// Calls on a socket, which comes first. They are conversation on a Unix socket (clients, the service
/// manager) and on a netlink socket, and effects on any other.
const ON_A_SOCKET: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Commands of bpf(2) that look, or make what goes away with the process unless it is pinned.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/bpf.h>
const HARMLESS_BPF: &[u64] = &[
    0,  // BPF_MAP_CREATE
    1,  // BPF_MAP_LOOKUP_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    5,  // BPF_PROG_LOAD
    7,  // BPF_OBJ_GET
    15, // BPF_OBJ_GET_INFO_BY_FD
    18, // BPF_BTF_LOAD
    22, // BPF_MAP_FREEZE
    28, // BPF_LINK_CREATE, which only probes what the kernel can do
];

/// Names of calls that are effects, for messages.
const NAMES: &[(i64, &str)] = &[
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_dup, "dup"),
    (libc::SYS_epoll_create1, "epoll_create1"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_eventfd2, "eventfd2"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_membarrier, "membarrier"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_write, "write"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
];

/// Calls that take a descriptor.
const TAKE_A_DESCRIPTOR: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_openat,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_socket,
    libc::SYS_socketpair,
];

/// Calls that make a file.
const MAKE_A_FILE: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

/// Calls that are no effects, and take memory of the kernel's.
const TAKE_MEMORY: &[i64] = &[libc::SYS_membarrier, libc::SYS_setns];

/// A system call that a thread is about to make, or is making.
pub(super) struct Call {
    process: Pid,
    number: i64,
    arguments: [u64; 6],
}

impl Call {
    /// The call that a stopped thread has entered; none where it leaves one.
    pub(super) fn entered(process: Pid, thread: Pid) -> Result<Option<Self>> {
        let info = match nix::sys::ptrace::syscall_info(thread) {
            Ok(info) => info,
            // Killed meanwhile.
            Err(Errno::ESRCH) => return Ok(None),
            Err(error) => return Err(error).context("PTRACE_GET_SYSCALL_INFO"),
        };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // The same on every architecture, unlike registers (proc_pid_syscall(5)).
        let text = match fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")) {
            Ok(text) => text,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error).context("read a thread's call"),
        };
        let mut fields = text.split_whitespace();
        let number = fields.next().context("a call's number")?.parse()?;
        let mut arguments = [0; 6];
        for (argument, field) in arguments.iter_mut().zip(fields) {
            *argument = u64::from_str_radix(field.trim_start_matches("0x"), 16)?;
        }
        Ok(Some(Self {
            process,
            number,
            arguments,
        }))
    }

    /// What to call it, and what it fails with where the kernel has no more of what it takes, if it
    /// takes anything.
    pub(super) fn shortage(&self) -> Result<Option<(String, Errno)>> {
        let [first, second, ..] = self.arguments;
        let shortage = match self.number {
            libc::SYS_bpf => Some(match first {
                6 => Errno::ENOSPC,      // BPF_OBJ_PIN
                7 | 14 => Errno::EMFILE, // BPF_OBJ_GET, BPF_MAP_GET_FD_BY_ID
                _ => Errno::ENOMEM,
            }),
            libc::SYS_fcntl if second == libc::F_DUPFD_CLOEXEC as u64 => Some(Errno::EMFILE),
            // The watches of a user are counted (`max_user_watches`, epoll(7)).
            libc::SYS_epoll_ctl if second == libc::EPOLL_CTL_ADD as u64 => Some(Errno::ENOSPC),
            libc::SYS_clone | libc::SYS_clone3 => Some(Errno::EAGAIN),
            number if TAKE_A_DESCRIPTOR.contains(&number) => Some(Errno::EMFILE),
            number if MAKE_A_FILE.contains(&number) => Some(Errno::ENOSPC),
            number if TAKE_MEMORY.contains(&number) => Some(Errno::ENOMEM),
            _ => self.effect()?.map(|_| Errno::ENOMEM),
        };
        Ok(shortage.map(|it| (self.name(), it)))
    }

    /// What to call it, if it is an effect.
    pub(super) fn effect(&self) -> Result<Option<String>> {
        let [first, second, third, ..] = self.arguments;
        let harmless = match self.number {
            libc::SYS_bpf => HARMLESS_BPF.contains(&first),
            libc::SYS_openat => third & (libc::O_CREAT | libc::O_TRUNC) as u64 == 0,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => second & (libc::O_CREAT | libc::O_TRUNC) as u64 == 0,
            libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 => !self.is_file(first),
            libc::SYS_recvmsg => self.is_conversation(first)?,
            libc::SYS_sendmsg => {
                !self.passes_descriptors(second)?
                    && self.is_conversation(first)?
                    && !self.is_datagram(first)?
            }
            number if ON_A_SOCKET.contains(&number) => self.is_conversation(first)?,
            number => HARMLESS.contains(&number),
        };
        Ok((!harmless).then(|| self.name()))
    }

    fn name(&self) -> String {
        let named = NAMES.iter().find(|(number, _)| *number == self.number);
        match named {
            Some((libc::SYS_bpf, name)) => format!("{name} {}", self.arguments[0]),
            Some((_, name)) => (*name).to_owned(),
            None => format!("call {}", self.number),
        }
    }

    /// Whether a descriptor is a file's, its log aside.
    fn is_file(&self, fd: u64) -> bool {
        let path = format!("/proc/{}/fd/{fd}", self.process);
        fd > 2 && fs::metadata(path).is_ok_and(|it| it.is_file())
    }

    /// Whether a socket is one that only messages travel on.
    fn is_conversation(&self, fd: u64) -> Result<bool> {
        // The thread stands, so that the duplicate is closed long before it can matter.
        let process = Process::open(u32::try_from(self.process.as_raw())?)?;
        let Ok(socket) = process.descriptor(i32::try_from(fd)?) else {
            // There is none: the call fails.
            return Ok(true);
        };
        let domain = socket_domain(&socket)?;
        Ok(domain == AddressFamily::UNIX || domain == AddressFamily::NETLINK)
    }

    /// Whether what is sent on a socket is for the service manager, which keeps or forgets what it says.
    fn is_datagram(&self, fd: u64) -> Result<bool> {
        let process = Process::open(u32::try_from(self.process.as_raw())?)?;
        let Ok(socket) = process.descriptor(i32::try_from(fd)?) else {
            return Ok(false);
        };
        let unix = socket_domain(&socket)? == AddressFamily::UNIX;
        Ok(unix && socket_type(&socket)? == SocketType::DGRAM)
    }

    /// Whether a message has ancillary data, which keeps or hands over a descriptor.
    fn passes_descriptors(&self, message: u64) -> Result<bool> {
        /// Where `msg_controllen` is.
        const CONTROL_LENGTH: u64 = std::mem::offset_of!(libc::msghdr, msg_controllen) as u64;
        let mut length = [0; size_of::<usize>()];
        let memory = File::open(format!("/proc/{}/mem", self.process))?;
        memory.read_exact_at(&mut length, message + CONTROL_LENGTH)?;
        Ok(length != [0; size_of::<usize>()])
    }
}

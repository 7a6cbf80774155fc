//! A decoder process gives everything up before it sees an object, except memory, its socket and files that are handed to it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How far decoder processes are shut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// System calls are filtered: no file can be opened, no connection made, no program run.
    Filtered,
    /// The system does not filter system calls, and this is why. The bounds of memory and time hold all the same.
    Unfiltered(String),
}

/// Ends this process when the thread that started it ends, and closes what it inherited by mistake. `parent` is the process that started it.
///
/// # Errors
/// The parent is gone already.
pub(super) fn tie_to_parent(parent: u32) -> io::Result<()> {
    let signal = libc::SIGKILL as libc::c_ulong;
    // SAFETY: PR_SET_PDEATHSIG takes a number and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no handler, so nothing runs in a signal's context. A stop of the whole service, or Ctrl-C, comes to this process
        // too; the node still wants its slices decoded, and ends it itself.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    // SAFETY: close_range(2) takes numbers and no pointer. Nothing in this process owns a descriptor above the standard three yet. Before
    // Linux 5.9 the call is unknown, and what was inherited stays open.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    Ok(())
}

/// No core file, no new privileges, and only the system calls that decoding needs.
pub(super) fn enter() -> io::Result<Sandbox> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match filter::apply() {
        Ok(()) => Sandbox::Filtered,
        Err(why) => Sandbox::Unfiltered(why),
    })
}

/// Bounds the address space, in bytes, the processor time, in seconds from now, and what is written into the shared memory, in bytes. A
/// process that exceeds the time is ended by SIGXCPU.
pub(super) fn bound(memory: u64, seconds: u64, shared: u64) -> io::Result<()> {
    // The shared memory counts as a file. It grows by writing alone, and this bound can only be lowered.
    let shared = getrlimit(Resource::Fsize).maximum.map_or(shared, |maximum| shared.min(maximum));
    setrlimit(Resource::Fsize, Rlimit { current: Some(shared), maximum: Some(shared) })?;
    let soft = |resource, value: u64| {
        let maximum = getrlimit(resource).maximum;
        let current = maximum.map_or(value, |maximum| value.min(maximum));
        setrlimit(resource, Rlimit { current: Some(current), maximum })
    };
    soft(Resource::As, memory)?;
    soft(Resource::Cpu, processor_seconds() + seconds + 1)?;
    Ok(())
}

/// The processor time that this process has taken, in whole seconds.
fn processor_seconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes to the structure, which lives until it returns, and keeps no pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0)
}

/// Bytes of this process's address space.
pub(super) fn address_space() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    size.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/self/status has no VmSize"))
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod filter {
    use std::collections::BTreeMap;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    /// Memory, the socket, files that are open, time, and the end. Everything else fails with EPERM, which libraries expect of systems that
    /// are locked down; a process that were killed for a harmless call would cost an object.
    const ALLOWED: [libc::c_long; 45] = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_fcntl,
        libc::SYS_recvmsg,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrusage,
        libc::SYS_prlimit64,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_tgkill,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_membarrier,
        libc::SYS_sched_getaffinity,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    pub fn apply() -> Result<(), String> {
        let rules = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect::<BTreeMap<_, _>>();
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let architecture = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
        let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture);
        let program = filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod filter {
    pub fn apply() -> Result<(), String> {
        Err(format!("the filter is not made for {}", std::env::consts::ARCH))
    }
}

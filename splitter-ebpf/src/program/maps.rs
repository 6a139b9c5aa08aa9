//! The maps, each with its contract, and the only `unsafe` that turns their pointers into values.
//!
//! All arrays are mapped into the agent's memory: it reads and writes them without a system call. "The agent" is one process at a time,
//! held to that by a lock.

use core::{arch::asm, cell::UnsafeCell, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_md},
    helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
};
use splitter_ebpf::{
    abi::{
        self, BUCKET, Backend, BackendCounters, Breaker, Bucket, DESTINATIONS as DESTINATION_COUNT, FRAGMENTS as FRAGMENT_COUNT,
        HANDSHAKE_BUCKETS, Histogram, Identity, MaglevLine, Nat, NatCursor, NetworkKey, ReasonCounters, RefusalBudget, Service,
        ServiceCounters, Settings, Slot, TraceFilter, Trip, Window,
    },
    address::Address,
    decision::Lookup,
    header::{self, Family, Packet},
    icmp::Quote,
    maglev,
    moment::Moment,
    stamp::Stamp,
};

use super::kernel::Kernel;

/// A table in a map of one value, which is the whole of it: the program has the value's address in an instruction, where a lookup is about eleven and a branch. Its size is fixed, and
/// kernels as 5.10 and 6.1 take values of 4 MiB at most. The agent makes the map before it loads the program, see `dataplane/direct.rs`.
#[repr(transparent)]
struct Direct<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: it's never used but by its address.
unsafe impl<T> Sync for Direct<T> {}

impl<T> Direct<T> {
    /// Where it lies. The address is the only thing that's ever asked of it here: to the compiler its value is zeroes that somebody else might have written over, for the symbol is to be
    /// seen from outside. Were it not, a load would be taken for one of zero; every test of the program would see that
    /// at once.
    #[inline(always)]
    const fn address(&self) -> *const T {
        self.0.get().cast()
    }
}

/// Sizes are set by the agent when it makes the maps; those that stand here serve as the smallest.
const MMAP: u32 = BPF_F_MMAPABLE;

/// Written by the agent that makes the maps (version) and by each that adopts them (count). Not read by the program.
#[map]
static IDENTITY: Array<Identity> = Array::pinned(1, MMAP);

/// Written by the agent before it attaches; afterwards `destinations` alone changes, by one store. Read with every packet.
#[unsafe(link_section = ".bss.settings")]
#[unsafe(no_mangle)]
static SETTINGS: Direct<Settings> = Direct(UnsafeCell::new(MaybeUninit::zeroed()));

/// Two generations. The agent writes the one that isn't in force, then switches `Settings::destinations`. Read with every packet.
#[unsafe(link_section = ".bss.destinations")]
#[unsafe(no_mangle)]
static DESTINATIONS: Direct<[abi::Destination; 2 * DESTINATION_COUNT as usize]> = Direct(UnsafeCell::new(MaybeUninit::zeroed()));

/// Written by the agent: a record before any destination names it, its tables of the other generation, its control word. Read with every packet.
#[map]
static SERVICES: Array<Service> = Array::pinned(1, MMAP);

/// Written by the agent: a record before any table names it, then its unselected way. A number is given to another backend only
/// when no connection has it any more. Read with every packet.
#[map]
static BACKENDS: Array<Backend> = Array::pinned(1, MMAP);

/// Maglev tables, as runs of lines. Written by the agent where no service in force points. Read by new connections.
#[map]
static MAGLEV: Array<MaglevLine> = Array::pinned(1, MMAP);

/// Written by the agent before any destination or backend names them. Read by replies and new connections.
#[map]
static NATS: Array<Nat> = Array::pinned(1, MMAP);

/// Known connections of `dsr` services. Written by the program, one word at a time; the agent's sweep clears expired words by compare and swap.
#[map]
static AFFINITY: Array<Bucket> = Array::pinned(1, MMAP);

/// Where `nat` connections find their slots. Written by the program, one word at a time; cleared by the agent's sweep with the slot.
#[map]
static NAT_AFFINITY: Array<Bucket> = Array::pinned(1, MMAP);

/// `nat` connections, by NAT address, protocol and port. Taken by the CPU in whose part of the range the port is, so no two CPUs take the same; the
/// word is stored last. Cleared by the agent's sweep by compare and swap.
#[map]
static SLOTS: Array<Slot> = Array::pinned(1, MMAP);

/// First fragments seen, eight to a bucket, the newest in front. Written and read by the program alone.
#[map]
static FRAGMENTS: Array<Bucket> = Array::pinned(FRAGMENT_COUNT / BUCKET as u32, MMAP);

/// Per CPU and NAT address: where to look for the next free port. Each CPU its own.
#[map]
static CURSORS: Array<NatCursor> = Array::pinned(1, MMAP);

/// Per CPU: ICMP errors sent in this unit of time. Each CPU its own.
#[map]
static BUDGETS: Array<RefusalBudget> = Array::pinned(1, MMAP);

/// Networks always or never canary, by service. Written by the agent, prefix by prefix. Read by new connections of services that have any.
#[map]
static NETWORKS: LpmTrie<NetworkKey, u8> = LpmTrie::pinned(1, 0);

/// What to report while a service's control word says *trace*. Written by the agent before it sets that bit.
#[map]
static TRACE: Array<TraceFilter> = Array::pinned(1, MMAP);

/// Per CPU and backend. Each CPU its own; summed by the agent.
#[map]
static BACKEND_COUNTERS: Array<BackendCounters> = Array::pinned(1, MMAP);

/// Per CPU and service. Each CPU its own; summed by the agent.
#[map]
static SERVICE_COUNTERS: Array<ServiceCounters> = Array::pinned(1, MMAP);

/// Per CPU. Each CPU its own; summed by the agent.
#[map]
static REASON_COUNTERS: Array<ReasonCounters> = Array::pinned(1, MMAP);

/// What the agent's sweep has counted, by backend: attempts that it found timed out. Written by the agent alone; here so that it outlives it.
#[map]
static SWEEP_COUNTERS: Array<BackendCounters> = Array::pinned(1, MMAP);

/// Limits of breakers, by service. Written by the agent. Read with packets that report a failure.
#[map]
static BREAKERS: Array<Breaker> = Array::pinned(1, MMAP);

/// What happened lately, by service and cohort. Added to by every CPU with attempts and what becomes of them, where the service has a breaker. Emptied by the
/// agent when the breaker is armed.
#[map]
static WINDOWS: Array<Window> = Array::pinned(2, MMAP);

/// Why a breaker tripped, by service. Written by the program before [`Service::trip`]; read by the agent.
#[map]
static TRIPS: Array<Trip> = Array::pinned(1, MMAP);

/// How long things took, by service, cohort and kind. Added to by every CPU with attempts that are answered; only grows.
#[map]
static HISTOGRAMS: Array<Histogram> = Array::pinned(4, MMAP);

/// When the attempts of `dsr` connections began. Written and read by the program alone.
#[map]
static HANDSHAKES: Array<Bucket> = Array::pinned(HANDSHAKE_BUCKETS, MMAP);

/// Wakes the agent when a breaker trips, with all numbers.
#[map]
static BELL: RingBuf = RingBuf::pinned(BELL_OCTETS, 0);

const BELL_OCTETS: u32 = 16 * 4096;

/// The program for the packets that the attached one leaves: `splitter_any`. Written by each agent with its own. A tail call and not a function, so that each of
/// the two has the whole stack, and the verifier looks at each by itself.
#[map]
static ANY: ProgramArray = ProgramArray::pinned(1, 0);

/// The same for multi-buffer frames: `splitter_any_frags`. (The kernel wants all programs around one such array to be of one kind.)
#[map]
static ANY_FRAGS: ProgramArray = ProgramArray::pinned(1, 0);

/// Leaves the frame to the program that takes every packet. Returns where there is none.
#[inline(always)]
pub fn leave_to_any<const FRAGS: bool>(frame: &Kernel<FRAGS>) {
    let programs = if FRAGS { &ANY_FRAGS } else { &ANY };
    // SAFETY: the other program begins with the context alone, and nothing here is left to be dropped.
    unsafe { programs.tail_call(frame, 0) };
}

/// The packet that this CPU is at, for the subprograms. Written before one is called, read by it.
#[map]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// The `nat` connection that this CPU is about to open. Written and read by the subprograms that do it.
#[map]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);

/// A `nat` connection about to be opened.
#[derive(Clone, Copy)]
pub struct Opening {
    /// The service's number.
    pub service: u32,
    /// The backend's number.
    pub backend: u32,
    /// The place of its word in the affinity table.
    pub place: u32,
    /// The NAT address's number.
    pub nat: u32,
}

/// The connection about to be opened.
#[inline(always)]
pub fn opening() -> Option<&'static mut Opening> {
    let place = OPENING.get_ptr_mut(0)?;
    // SAFETY: the lookup gave a pointer to this CPU's own element; every value of these integers is valid.
    Some(unsafe { &mut *place })
}

/// What the ICMP error that this CPU is at quotes. Written by the subprogram that finds the connection, read by the one that translates.
#[map]
static QUOTE: PerCpuArray<Quote> = PerCpuArray::with_max_entries(1, 0);

/// Keeps a quote.
#[inline(always)]
pub fn keep_quote(quote: Quote) -> Option<&'static Quote> {
    let place = QUOTE.get_ptr_mut(0)?;
    // SAFETY: the lookup gave a pointer to this CPU's own element.
    unsafe {
        place.write(quote);
        Some(&*place)
    }
}

/// The quote that was kept.
#[inline(always)]
pub fn quote() -> Option<&'static Quote> {
    let place = QUOTE.get_ptr(0)?;
    // SAFETY: the lookup gave a pointer to this CPU's own element, to which a valid value was just written.
    Some(unsafe { &*place })
}

/// Leaves the packet to the subprograms that are called next. Reads the frame anew: so the program needn't keep all of the packet until it knows whether
/// one will be called, which is rare.
#[inline(always)]
pub fn leave<const FRAGS: bool>(frame: &Kernel<FRAGS>) {
    if FRAGS {
        splitter_leave_frags(frame.context());
    } else {
        splitter_leave(frame.context());
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_leave(context: *mut xdp_md) -> u32 {
    decode_and_keep(&Kernel::<false>::new(context))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_leave_frags(context: *mut xdp_md) -> u32 {
    decode_and_keep(&Kernel::<true>::new(context))
}

#[inline(always)]
fn decode_and_keep<const FRAGS: bool>(frame: &Kernel<FRAGS>) -> u32 {
    if let Some(place) = PACKET.get_ptr_mut(0)
        && let Ok(packet) = header::decode(frame)
    {
        // SAFETY: the lookup gave a pointer to this CPU's own element.
        unsafe { place.write(packet) };
    }
    0
}

/// The packet that the program has left.
#[inline(always)]
pub fn packet() -> Option<&'static Packet> {
    let place = PACKET.get_ptr(0)?;
    // SAFETY: the lookup gave a pointer to this CPU's own element, to which the program has just had a valid value written.
    Some(unsafe { &*place })
}

/// The settings, once an agent has filled them in.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    Some(settings_as_they_are()).filter(|settings| settings.cpus != 0)
}

/// A destination's entry.
#[inline(always)]
fn entry(settings: &Settings, address: Address, port: u16, protocol: u8, family: Family) -> Option<&'static abi::Destination> {
    let word = settings.destinations.load();
    let first_of_generation = (word & 1) as u32 * DESTINATION_COUNT;
    let (first, second) = abi::destination_indexes(word >> 1, address, port, protocol);
    let entry = destination(first_of_generation + first);
    if entry.is(address, port, protocol, family) {
        return Some(entry);
    }
    if entry.overflow == 0 {
        return None;
    }
    Some(destination(first_of_generation + second)).filter(|entry| entry.is(address, port, protocol, family))
}

/// The settings, filled in or not.
#[inline(always)]
pub fn settings_as_they_are() -> &'static Settings {
    // SAFETY: it lives as long as the program, and every value of its integers is valid.
    unsafe { &*SETTINGS.address() }
}

/// An entry of the destinations' table, by its number through both generations.
#[inline(always)]
fn destination(number: u32) -> &'static abi::Destination {
    const SIZE: usize = size_of::<abi::Destination>();
    const { assert!(SIZE.is_power_of_two()) };
    let mut offset = number as usize * SIZE;
    // SAFETY: arithmetic. LLVM knows that no number is too great, and would leave out what shows it to the verifier.
    unsafe {
        asm!("{offset} &= {mask}", offset = inout(reg) offset, mask = const size_of_val(&DESTINATIONS) - SIZE, options(pure, nomem, nostack));
    }
    // SAFETY: the mask leaves the offset of an element of the table, whose elements are aligned to its size.
    unsafe { &*DESTINATIONS.address().cast::<abi::Destination>().byte_add(offset) }
}

/// The service at an address and port, and its number.
#[inline(always)]
pub fn service_at(
    settings: &Settings,
    address: Address,
    port: u16,
    protocol: u8,
    family: Family,
) -> Option<(u32, &'static Service)> {
    let entry = entry(settings, address, port, protocol, family)?;
    SERVICES.get(entry.index).map(|service| (entry.index, service))
}

/// The service that a packet goes to, and its number.
#[inline(always)]
pub fn service_of(settings: &Settings, packet: &Packet) -> Option<(u32, &'static Service)> {
    service_at(settings, packet.destination, packet.destination_port, packet.protocol, packet.family)
}

/// The number of the NAT address that this is, if it is one.
#[inline(always)]
pub fn nat_at(settings: &Settings, address: Address, family: Family) -> Option<u32> {
    entry(settings, address, 0, 0, family).map(|entry| entry.index)
}

/// How far into the NAT range a port (as loaded) is.
#[inline(always)]
pub fn nat_port(settings: &Settings, port: u16) -> Option<u32> {
    // SAFETY: both are references' fields. Read anew each time: kept from one question to the next, they'd lie on the stack.
    let (low, count) =
        unsafe { ((&raw const settings.nat_low).read_volatile(), (&raw const settings.nat_count).read_volatile()) };
    let offset = u32::from(u16::from_be(port)).wrapping_sub(u32::from(low));
    if offset < u32::from(count) { Some(offset) } else { None }
}

/// A service by its number.
#[inline(always)]
pub fn service(number: u32) -> Option<&'static Service> {
    SERVICES.get(number)
}

/// A backend by its number.
#[inline(always)]
pub fn backend(number: u32) -> Option<&'static Backend> {
    BACKENDS.get(number).filter(|backend| backend.in_use != 0)
}

/// A NAT address by its number.
#[inline(always)]
pub fn nat(number: u32) -> Option<&'static Nat> {
    NATS.get(number)
}

/// What a decision looks things up in.
pub struct Maps;

impl Lookup for Maps {
    #[inline(always)]
    fn network(&self, service: u32, client: Address) -> u8 {
        splitter_network(service, client.high, client.low) as u8
    }

    #[inline(always)]
    fn maglev(&self, entry: maglev::Entry) -> Option<u32> {
        let line = MAGLEV.get(entry.line)?;
        line.backends.get(entry.column as usize).map(|number| u32::from(*number))
    }
}

/// Asks the prefix table. A function of its own, so that services without networks don't carry its stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_network(service: u32, high: u64, low: u64) -> u32 {
    let key = NetworkKey { service, address: Address { high, low }.octets() };
    NETWORKS.get(Key::new(160, key)).map_or(0, |verdict| u32::from(*verdict))
}

/// A bucket of the `dsr` affinity table.
#[inline(always)]
pub fn affinity(index: u32) -> Option<&'static Bucket> {
    AFFINITY.get(index)
}

/// A bucket of the `nat` affinity table.
#[inline(always)]
pub fn nat_affinity(index: u32) -> Option<&'static Bucket> {
    NAT_AFFINITY.get(index)
}

/// A slot.
#[inline(always)]
pub fn slot(index: u32) -> Option<&'static Slot> {
    SLOTS.get(index)
}

/// A slot to be filled in.
#[inline(always)]
pub fn slot_mut(index: u32) -> Option<*mut Slot> {
    SLOTS.get_ptr_mut(index)
}

/// A bucket of remembered first fragments.
#[inline(always)]
pub fn fragments(index: u32) -> Option<&'static Bucket> {
    FRAGMENTS.get(index & (FRAGMENT_COUNT / BUCKET as u32 - 1))
}

/// This CPU's place in a NAT address's range.
#[inline(always)]
pub fn cursor(settings: &Settings, cpu: u32, nat: u32) -> Option<&'static mut NatCursor> {
    let cursor = CURSORS.get_ptr_mut(cpu * settings.nats + nat)?;
    // SAFETY: the lookup gave a pointer into the map; the element is this CPU's own, and a program isn't interrupted by itself on its CPU.
    Some(unsafe { &mut *cursor })
}

/// This CPU's budget of ICMP errors.
#[inline(always)]
pub fn budget(cpu: u32) -> Option<&'static mut RefusalBudget> {
    let budget = BUDGETS.get_ptr_mut(cpu)?;
    // SAFETY: as in `cursor`.
    Some(unsafe { &mut *budget })
}

/// What to report.
#[inline(always)]
pub fn trace() -> Option<&'static TraceFilter> {
    TRACE.get(0)
}

/// This CPU's counters of a backend.
#[inline(always)]
pub fn backend_counters(settings: &Settings, backend: u32) -> Option<&'static mut BackendCounters> {
    let counters = BACKEND_COUNTERS.get_ptr_mut(cpu() * settings.backends + backend)?;
    // SAFETY: as in `cursor`.
    Some(unsafe { &mut *counters })
}

/// This CPU's counters of a service.
#[inline(always)]
pub fn service_counters(settings: &Settings, service: u32) -> Option<&'static mut ServiceCounters> {
    let counters = SERVICE_COUNTERS.get_ptr_mut(cpu() * settings.services + service)?;
    // SAFETY: as in `cursor`.
    Some(unsafe { &mut *counters })
}

/// This CPU's counters by reason.
#[inline(always)]
pub fn reason_counters() -> Option<&'static mut ReasonCounters> {
    let counters = REASON_COUNTERS.get_ptr_mut(cpu())?;
    // SAFETY: as in `cursor`.
    Some(unsafe { &mut *counters })
}

/// A service's breaker.
#[inline(always)]
pub fn breaker(service: u32) -> Option<&'static Breaker> {
    BREAKERS.get(service)
}

/// What happened lately to a cohort of a service.
#[inline(always)]
pub fn window(service: u32, cohort: u32) -> Option<&'static Window> {
    WINDOWS.get(2 * service + (cohort & 1))
}

/// Where it's said why a service's breaker tripped.
#[inline(always)]
pub fn trip_of(service: u32) -> Option<*mut Trip> {
    TRIPS.get_ptr_mut(service)
}

/// How long things took a cohort of a service; `kind` of [`abi::kind`].
#[inline(always)]
pub fn histogram(service: u32, cohort: u32, kind: u32) -> Option<&'static Histogram> {
    HISTOGRAMS.get(2 * (2 * service + (cohort & 1)) + (kind & 1))
}

/// A bucket of the table of handshakes.
#[inline(always)]
pub fn handshakes(index: u32) -> Option<&'static Bucket> {
    HANDSHAKES.get(index)
}

/// Wakes the agent.
#[inline(always)]
pub fn ring(trip: &Trip) -> bool {
    BELL.output::<Trip>(trip, 0).is_ok()
}

/// What a breaker goes by at this moment. Each CPU its own.
#[map]
static SCALES: PerCpuArray<Trip> = PerCpuArray::with_max_entries(1, 0);

/// Where this CPU weighs both cohorts.
#[inline(always)]
pub fn scales() -> Option<&'static mut Trip> {
    let place = SCALES.get_ptr_mut(0)?;
    // SAFETY: the lookup gave a pointer to this CPU's own element; every value of these integers is valid.
    Some(unsafe { &mut *place })
}

/// The kernel's monotonic clock: a helper call, so for rare packets alone.
#[inline(always)]
pub fn moment() -> Moment {
    // SAFETY: a helper call without arguments.
    Moment(unsafe { bpf_ktime_get_ns() })
}

/// This CPU's number. Inlined to a load by kernels from 6.10 on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: a helper call without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// The present moment.
#[inline(always)]
pub fn now(settings: &Settings) -> Stamp {
    Stamp::of(jiffies(), settings.stamp_shift)
}

/// The kernel's ticks. Inlined to a load.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: a helper call without arguments.
    unsafe { bpf_jiffies64() }
}

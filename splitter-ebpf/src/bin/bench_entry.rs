//! The bench's entry: makes a run's packet, undoes what the last run left, and calls the program that ships, or one that answers
//! `XDP_TX` at once. The difference of the two is what the program costs, for everything else is the same.
//!
//! A store that is still under way reaches a load of the same width or a narrower one inside it, but not a wider one: that one waits. So what is
//! written here is as wide as anything that a program may load from it (addresses 32 or 64 bits, both ports together), and what needn't be
//! written isn't.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod program {
    use core::arch::asm;

    use aya_ebpf::{
        bindings::{
            BPF_F_MMAPABLE,
            xdp_action::{XDP_ABORTED, XDP_TX},
            xdp_md,
        },
        helpers::{bpf_get_smp_processor_id, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
        macros::{map, xdp},
        maps::{Array, ProgramArray},
        programs::XdpContext,
    };
    use splitter_ebpf::{
        abi::{BUCKET, Bucket, RefusalBudget, SharedWord, Slot},
        affinity::Word,
        bench::{Flow, Plan, does, target},
    };

    const MMAP: u32 = BPF_F_MMAPABLE;

    /// Written by the bench between measurements; of it the entry changes `next` alone.
    #[map]
    static PLAN: Array<Plan> = Array::with_max_entries(1, MMAP);

    /// Written by the bench between measurements, in the order in which they come.
    #[map]
    static FLOWS: Array<Flow> = Array::with_max_entries(1, MMAP);

    /// Filled in by the bench. A table takes programs of one kind alone, so there are two.
    #[map]
    static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(target::COUNT, 0);
    /// For those that take multi-buffer frames.
    #[map]
    static PROGRAMS_FRAGS: ProgramArray = ProgramArray::with_max_entries(target::COUNT, 0);

    /// These four are the data plane's own.
    #[map]
    static AFFINITY: Array<Bucket> = Array::pinned(1, MMAP);
    #[map]
    static NAT_AFFINITY: Array<Bucket> = Array::pinned(1, MMAP);
    #[map]
    static SLOTS: Array<Slot> = Array::pinned(1, MMAP);
    #[map]
    static BUDGETS: Array<RefusalBudget> = Array::pinned(1, MMAP);

    macro_rules! entries {
        ($(#[$xdp:meta] $name:ident: $frags:literal, $programs:ident[$target:ident];)+) => { $(
            #[$xdp]
            pub fn $name(context: XdpContext) -> u32 {
                if prepare::<$frags>(context.ctx).is_some() {
                    // SAFETY: nothing here has a destructor. The index is a constant, so the kernel makes a jump of it.
                    unsafe { $programs.tail_call(&context, target::$target) };
                }
                XDP_ABORTED
            }
        )+ };
    }

    entries! {
        #[xdp] bench_empty: false, PROGRAMS[EMPTY];
        #[xdp] bench_shipped: false, PROGRAMS[SHIPPED];
        #[xdp] bench_other: false, PROGRAMS[OTHER];
        #[xdp(frags)] bench_empty_frags: true, PROGRAMS_FRAGS[EMPTY];
        #[xdp(frags)] bench_shipped_frags: true, PROGRAMS_FRAGS[SHIPPED];
        #[xdp(frags)] bench_other_frags: true, PROGRAMS_FRAGS[OTHER];
    }

    /// What everything is compared with.
    #[xdp]
    pub fn empty(_context: XdpContext) -> u32 {
        XDP_TX
    }

    /// The same.
    #[xdp(frags)]
    pub fn empty_frags(_context: XdpContext) -> u32 {
        XDP_TX
    }

    #[inline(always)]
    fn prepare<const FRAGS: bool>(context: *mut xdp_md) -> Option<()> {
        // SAFETY: the lookup gave a pointer into the map, of which nothing is written while the program runs but by itself, on one CPU.
        let plan = unsafe { &mut *PLAN.get_ptr_mut(0)? };
        let does = plan.does;
        let number = plan.next;
        plan.next = if number + 1 < plan.flows { number + 1 } else { 0 };
        if does & does::FORGET_DSR != 0 {
            cell(AFFINITY.get(plan.place / BUCKET as u32)?, plan.place)?.store(0);
        }
        if does & does::FORGET_NAT != 0 {
            let cell = cell(NAT_AFFINITY.get(plan.place / BUCKET as u32)?, plan.place)?;
            // Where there is no connection, this is the first slot, and nobody's.
            SLOTS.get(Word(cell.load()).value())?.word.store(0);
            cell.store(0);
        }
        if does & does::FORGET_ERRORS != 0 {
            // SAFETY: a helper call without arguments.
            let cpu = unsafe { bpf_get_smp_processor_id() };
            // SAFETY: as above.
            unsafe { (*BUDGETS.get_ptr_mut(cpu)?).sent = 0 };
        }
        if does & does::UNDO_ANSWER != 0 {
            return undo_answer::<FRAGS>(context, plan);
        }
        if does & does::VARY == 0 {
            return Some(());
        }
        let flow = FLOWS.get(number)?;
        match does & (does::IPV6 | does::TAGGED) {
            0 => vary::<14, false>(context, plan, flow),
            does::TAGGED => vary::<18, false>(context, plan, flow),
            _ => vary::<14, true>(context, plan, flow),
        }
    }

    #[inline(always)]
    fn cell(bucket: &'static Bucket, place: u32) -> Option<&'static SharedWord> {
        bucket.words.get(place as usize & (BUCKET - 1))
    }

    /// Makes the packet one of this flow, all else being in place or written back as well.
    #[inline(always)]
    fn vary<const NETWORK: usize, const V6: bool>(context: *mut xdp_md, plan: &Plan, flow: &Flow) -> Option<()> {
        let transport = NETWORK + if V6 { 40 } else { 20 };
        let frame = frame(context, transport + 20)?;
        let network = frame + NETWORK;
        let transport = frame + transport;
        let undo = plan.does & does::UNDO_NAT != 0;
        // SAFETY: `frame` has just made sure that the frame has all of this.
        unsafe {
            if undo {
                store64(frame, plan.template[0]);
                store32(frame + 8, plan.template[1] as u32);
            }
            if V6 {
                if undo {
                    store16(network + 6, plan.ttl);
                    store64(network + 8, plan.high[0]);
                    store64(network + 24, plan.high[1]);
                }
                store64(network + 16, flow.source);
                store64(network + 32, flow.destination);
            } else {
                if undo {
                    store16(network + 8, plan.ttl);
                }
                store16(network + 10, flow.network_checksum);
                store32(network + 12, flow.source as u32);
                store32(network + 16, flow.destination as u32);
            }
            store32(transport, flow.ports);
            if plan.does & does::UDP != 0 {
                store16(transport + 6, flow.transport_checksum);
            } else {
                store16(transport + 16, flow.transport_checksum);
            }
        }
        Some(())
    }

    /// Makes an answer the packet again: place, headers, length. Both helpers are called whether there is anything to move or not, so that they cost
    /// the same in front of the empty program; the second one comes last, and until it's through, the stores have arrived.
    #[inline(always)]
    fn undo_answer<const FRAGS: bool>(context: *mut xdp_md, plan: &Plan) -> Option<()> {
        let length = length::<FRAGS>(context);
        let ethernet = frame(context, 24)?;
        let v6 = plan.does & does::IPV6 != 0;
        // An ICMP error has grown at its front, by its own headers.
        let (protocol_at, icmp, headers) = if v6 { (20, 58, 48) } else { (23, 1, 28) };
        // SAFETY: 24 octets are there.
        let protocol = unsafe { ((ethernet + protocol_at) as *const u8).read() };
        let grown = if protocol == icmp { headers } else { 0 };
        // SAFETY: a helper call on the program's own context; the pointers are loaded anew before the next access.
        if unsafe { bpf_xdp_adjust_head(context, grown) } != 0 {
            return None;
        }
        // What an answer leaves of the packet that it was made of.
        match plan.does & (does::IPV6 | does::UDP) {
            0 => write_back::<54>(context, plan),
            does::UDP => write_back::<42>(context, plan),
            does::IPV6 => write_back::<74>(context, plan),
            _ => write_back::<62>(context, plan),
        }?;
        let missing = plan.length as i32 - (length - grown);
        // SAFETY: as above.
        if unsafe { bpf_xdp_adjust_tail(context, missing) } == 0 { Some(()) } else { None }
    }

    /// Writes the frame's first octets back.
    #[inline(always)]
    fn write_back<const OCTETS: usize>(context: *mut xdp_md, plan: &Plan) -> Option<()> {
        let start = frame(context, OCTETS)?;
        let (words, rest) = (OCTETS / 8, OCTETS % 8);
        // SAFETY: so many octets are there.
        unsafe {
            for word in 0..words {
                store64(start + 8 * word, plan.template[word]);
            }
            let last = plan.template[words];
            if rest >= 4 {
                store32(start + 8 * words, last as u32);
                store16(start + 8 * words + 4, (last >> 32) as u16);
            } else {
                store16(start + 8 * words, last as u16);
            }
        }
        Some(())
    }

    #[inline(always)]
    fn length<const FRAGS: bool>(context: *mut xdp_md) -> i32 {
        if FRAGS {
            // SAFETY: a helper call on the program's own context, which it only reads.
            unsafe { bpf_xdp_get_buff_len(context) as i32 }
        } else {
            // SAFETY: `context` is the pointer that the kernel called the program with.
            unsafe { (*context).data_end as i32 - (*context).data as i32 }
        }
    }

    /// Where the frame begins, if it has so many octets.
    #[inline(always)]
    fn frame(context: *mut xdp_md, octets: usize) -> Option<usize> {
        // SAFETY: `context` is the pointer that the kernel called the program with.
        let (start, end) = unsafe { ((*context).data as usize, (*context).data_end as usize) };
        if start + octets > end { None } else { Some(start) }
    }

    macro_rules! stores {
        ($($name:ident $integer:ident $c:literal;)+) => { $(
            /// One instruction, whatever the alignment.
            ///
            /// # Safety
            /// The octets lie within the frame.
            #[inline(always)]
            unsafe fn $name(address: usize, value: $integer) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("*(", $c, " *)({address} + 0) = {value}"),
                        value = in(reg) value as u64,
                        address = in(reg) address,
                        options(nostack)
                    );
                }
            }
        )+ };
    }
    stores! { store16 u16 "u16"; store32 u32 "u32"; store64 u64 "u64"; }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // The verifier refuses a program in which this can be reached.
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

//! Program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        macros::{map, xdp},
        maps::Array,
        programs::XdpContext,
    };
    #[map]
    static M: Array<u64> = Array::with_max_entries(16, 0x400);
    #[xdp]
    pub fn splitter(ctx: XdpContext) -> u32 {
        let d = ctx.data();
        if d + 34 > ctx.data_end() {
            return xdp_action::XDP_PASS;
        }
        let w: u32 = unsafe { core::ptr::read_unaligned((d + 26) as *const u32) };
        match M.get(w & 15) {
            Some(v) if *v == 7 => xdp_action::XDP_TX,
            _ => xdp_action::XDP_PASS,
        }
    }
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}
#[cfg(not(target_arch = "bpf"))]
fn main() {}

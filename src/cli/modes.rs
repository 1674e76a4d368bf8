//! A terminal's modes as SSH spells them (RFC 4254 section 8).

use rustix::termios::{ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios};

use crate::ssh::PtyMode;

const INPUT_SPEED: u8 = 128;
const OUTPUT_SPEED: u8 = 129;

/// What SSH calls a special character that is switched off.
const DISABLED: u32 = 255;

const SPECIAL: &[(u8, SpecialCodeIndex)] = &[
    (1, SpecialCodeIndex::VINTR),
    (2, SpecialCodeIndex::VQUIT),
    (3, SpecialCodeIndex::VERASE),
    (4, SpecialCodeIndex::VKILL),
    (5, SpecialCodeIndex::VEOF),
    (6, SpecialCodeIndex::VEOL),
    (7, SpecialCodeIndex::VEOL2),
    (8, SpecialCodeIndex::VSTART),
    (9, SpecialCodeIndex::VSTOP),
    (10, SpecialCodeIndex::VSUSP),
    (12, SpecialCodeIndex::VREPRINT),
    (13, SpecialCodeIndex::VWERASE),
    (14, SpecialCodeIndex::VLNEXT),
    (18, SpecialCodeIndex::VDISCARD),
];

const INPUT: &[(u8, InputModes)] = &[
    (30, InputModes::IGNPAR),
    (31, InputModes::PARMRK),
    (32, InputModes::INPCK),
    (33, InputModes::ISTRIP),
    (34, InputModes::INLCR),
    (35, InputModes::IGNCR),
    (36, InputModes::ICRNL),
    (38, InputModes::IXON),
    (39, InputModes::IXANY),
    (40, InputModes::IXOFF),
    (41, InputModes::IMAXBEL),
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    (42, InputModes::IUTF8),
];

const LOCAL: &[(u8, LocalModes)] = &[
    (50, LocalModes::ISIG),
    (51, LocalModes::ICANON),
    (53, LocalModes::ECHO),
    (54, LocalModes::ECHOE),
    (55, LocalModes::ECHOK),
    (56, LocalModes::ECHONL),
    (57, LocalModes::NOFLSH),
    (58, LocalModes::TOSTOP),
    (59, LocalModes::IEXTEN),
    (60, LocalModes::ECHOCTL),
    (61, LocalModes::ECHOKE),
    (62, LocalModes::PENDIN),
];

const OUTPUT: &[(u8, OutputModes)] = &[
    (70, OutputModes::OPOST),
    (72, OutputModes::ONLCR),
    (73, OutputModes::OCRNL),
    (74, OutputModes::ONOCR),
    (75, OutputModes::ONLRET),
];

/// `termios` as pairs of a mode and its value.
pub(crate) fn encode(termios: &Termios) -> Vec<(PtyMode, u32)> {
    let special = SPECIAL.iter().map(|(opcode, index)| (*opcode, special_code(termios.special_codes[*index])));
    let input = INPUT.iter().map(|(opcode, mode)| (*opcode, termios.input_modes.contains(*mode)));
    let local = LOCAL.iter().map(|(opcode, mode)| (*opcode, termios.local_modes.contains(*mode)));
    let output = OUTPUT.iter().map(|(opcode, mode)| (*opcode, termios.output_modes.contains(*mode)));
    let flags = input.chain(local).chain(output).chain(control(termios.control_modes));
    let speeds = [(INPUT_SPEED, termios.input_speed()), (OUTPUT_SPEED, termios.output_speed())];
    let all = special.chain(flags.map(|(opcode, set)| (opcode, u32::from(set)))).chain(speeds);
    all.map(|(opcode, value)| (PtyMode(opcode), value)).collect()
}

/// The character sizes are values of one field, not flags of their own.
fn control(modes: ControlModes) -> [(u8, bool); 4] {
    let size = modes & ControlModes::CSIZE;
    [
        (90, size == ControlModes::CS7),
        (91, size == ControlModes::CS8),
        (92, modes.contains(ControlModes::PARENB)),
        (93, modes.contains(ControlModes::PARODD)),
    ]
}

fn special_code(code: u8) -> u32 {
    if code == posix_vdisable() { DISABLED } else { u32::from(code) }
}

/// `_POSIX_VDISABLE`.
const fn posix_vdisable() -> u8 {
    if cfg!(target_os = "linux") { 0 } else { 0xff }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rustix::termios::tcgetattr;

    use super::*;

    /// Modes of a fresh pseudo-terminal, which is the one way to make a `Termios`.
    fn termios() -> Termios {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        tcgetattr(&master).unwrap()
    }

    fn encoded(change: impl FnOnce(&mut Termios)) -> BTreeMap<u8, u32> {
        let mut termios = termios();
        change(&mut termios);
        encode(&termios).into_iter().map(|(PtyMode(opcode), value)| (opcode, value)).collect()
    }

    #[test]
    fn control_characters_and_flags_are_told() {
        let modes = encoded(|termios| {
            termios.special_codes[SpecialCodeIndex::VERASE] = 0x7f;
            termios.input_modes.insert(InputModes::ICRNL);
            termios.local_modes.remove(LocalModes::ECHO);
            termios.output_modes.insert(OutputModes::OPOST);
        });
        assert_eq!((modes[&3], modes[&36], modes[&53], modes[&70]), (0x7f, 1, 0, 1));
    }

    #[test]
    fn a_character_that_is_switched_off_is_255() {
        let modes = encoded(|termios| termios.special_codes[SpecialCodeIndex::VINTR] = posix_vdisable());
        assert_eq!(modes[&1], DISABLED);
    }

    #[test]
    fn a_character_size_of_eight_is_not_taken_for_seven_too() {
        let modes = encoded(|termios| {
            termios.control_modes.remove(ControlModes::CSIZE);
            termios.control_modes.insert(ControlModes::CS8);
        });
        assert_eq!((modes[&90], modes[&91]), (0, 1));
    }

    #[test]
    fn speeds_are_bits_per_second() {
        let modes = encoded(|termios| termios.set_speed(38_400).unwrap());
        assert_eq!((modes[&INPUT_SPEED], modes[&OUTPUT_SPEED]), (38_400, 38_400));
    }
}

//! The pseudo-terminal that a command can be given.

/// A pseudo-terminal as RFC 4254 section 6.2 asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pty {
    /// The value of `TERM`.
    pub term: String,
    /// Width in characters.
    pub cols: u32,
    /// Height in characters.
    pub rows: u32,
    /// Width in pixels, 0 if unknown.
    pub width_px: u32,
    /// Height in pixels, 0 if unknown.
    pub height_px: u32,
    /// Terminal modes; those that are missing keep the server's defaults.
    pub modes: Vec<(PtyMode, u32)>,
}

impl Pty {
    /// Modes that russh has no name for are left out.
    pub(super) fn russh_modes(&self) -> Vec<(russh::Pty, u32)> {
        self.modes.iter().filter_map(|&(PtyMode(code), value)| Some((russh::Pty::from_u8(code)?, value))).collect()
    }
}

/// A terminal mode by its number in RFC 4254 section 8 and RFC 8160.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PtyMode(
    /// The number.
    pub u8,
);

macro_rules! modes {
    ($($name:ident = $code:literal),* $(,)?) => {
        #[expect(missing_docs, reason = "the names are those of termios(3)")]
        impl PtyMode {
            $(pub const $name: Self = Self($code);)*
        }
    };
}

modes! {
    VINTR = 1, VQUIT = 2, VERASE = 3, VKILL = 4, VEOF = 5, VEOL = 6, VEOL2 = 7, VSTART = 8, VSTOP = 9, VSUSP = 10,
    VDSUSP = 11, VREPRINT = 12, VWERASE = 13, VLNEXT = 14, VFLUSH = 15, VSWTCH = 16, VSTATUS = 17, VDISCARD = 18,
    IGNPAR = 30, PARMRK = 31, INPCK = 32, ISTRIP = 33, INLCR = 34, IGNCR = 35, ICRNL = 36, IUCLC = 37, IXON = 38,
    IXANY = 39, IXOFF = 40, IMAXBEL = 41, IUTF8 = 42,
    ISIG = 50, ICANON = 51, XCASE = 52, ECHO = 53, ECHOE = 54, ECHOK = 55, ECHONL = 56, NOFLSH = 57, TOSTOP = 58,
    IEXTEN = 59, ECHOCTL = 60, ECHOKE = 61, PENDIN = 62,
    OPOST = 70, OLCUC = 71, ONLCR = 72, OCRNL = 73, ONOCR = 74, ONLRET = 75,
    CS7 = 90, CS8 = 91, PARENB = 92, PARODD = 93,
    TTY_OP_ISPEED = 128, TTY_OP_OSPEED = 129,
}

//! Names of buffers and processes that are chosen to mislead a program or a person that reads them.

/// Names that an untrusted process could give its buffers: forged fdinfo lines, forged rows and
/// closing lines of the kernel's list of dma-bufs, escape sequences, marks that other tools use,
/// and bytes that are not text. Each has at most 31 bytes.
pub const HOSTILE: &[&[u8]] = &[
    b"",
    b"a\nsize:\t1\ncount:\t99\nino:\t1",
    b"a\nexp_name:\tevil\nname:\tb",
    b"size:\t0",
    b"\nsize:\t0\ncount:\t0\n",
    b"\n00000001\t00000000\t00000000\t00",
    b"\n9\t0\t0\t9\tevil\t99\tz",
    b"\n\tAttached Devices:\n\tevil",
    b"\nTotal 9 objects, 9 bytes",
    b"\nTotal 0 devices attached\n\n",
    b"cam (deleted)",
    b" (deleted)",
    b"<none>",
    b"\x1b[2J\x1b]0;x\x07",
    "\u{9b}31mC1\u{85}\u{9d}0;x\u{9c}".as_bytes(),
    b"back\\slash \\012 \\x41 tab\there",
    b" leading and trailing ",
    b"\r\x08\x7f\x0b\x0c",
    b"\",\"a\",'",
    b"-",
    b"?",
    "\u{202e}gnp.exe".as_bytes(),
    "\u{2028}\u{200b}\u{feff}".as_bytes(),
    b"0123456789012345678901234567890",
    b"\xff\xfe\x80\xc3( \xed\xa0\x80",
    &[0xff; 31],
    &[b'\n'; 31],
];

/// Names that an untrusted process could give itself: the fields that follow a name in `stat`, the
/// lines that follow it in `status`, other holders. Each has at most 15 bytes.
pub const HOSTILE_COMMS: &[&[u8]] = &[
    b"",
    b") R 1 2 (",
    b"a\nUid:\t7\t7",
    b"\n\n\n",
    b"\x1b]0;x\x07\x1b[2J",
    b"\xff\xfe\x80\xc3(",
    b"x:1(9f) sshd:2",
    b"\t\r\x7f",
    "\u{202e}\u{9b}2J".as_bytes(),
];

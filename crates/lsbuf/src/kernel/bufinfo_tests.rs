//! The list as different kernels print it, and what names can and cannot forge.

use proptest::prelude::*;

use super::*;

const HEADER: &str = "\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n";

/// One buffer as `dma_buf_debug_show` prints it.
fn entry(ino: u64, name: &[u8], between: &str, devices: &[&str]) -> Vec<u8> {
    let mut text = format!("00065536\t00000000\t00080007\t00000002\tsystem\t{ino:08}\t").into_bytes();
    text.extend_from_slice(name);
    text.extend_from_slice(b"\n");
    text.extend_from_slice(between.as_bytes());
    text.extend_from_slice(b"\tAttached Devices:\n");
    for device in devices {
        text.extend_from_slice(format!("\t{device}\n").as_bytes());
    }
    text.extend_from_slice(format!("Total {} devices attached\n\n", devices.len()).as_bytes());
    text
}

fn whole(entries: &[Vec<u8>]) -> Vec<u8> {
    let closing = format!("\nTotal {} objects, {} bytes\n", entries.len(), 65536 * entries.len());
    [HEADER.as_bytes(), &entries.concat(), closing.as_bytes()].concat()
}

/// Check that a row, its devices and the closing line are read.
#[test]
fn a_whole_list() {
    let list = parse(&whole(&[entry(1, b"cam", "", &[]), entry(2, b"<none>", "", &["vgem", "soc:gpu"])]));
    let expected = ListedBuffer {
        ino: Inode(2),
        size: Bytes(65536),
        count: 2,
        exporter: "system".into(),
        name: Some(Label::default()),
        attachments: Some(vec!["vgem".into(), "soc:gpu".into()]),
    };
    assert_eq!(list.buffers[1], expected);
    assert_eq!(list.buffers[0].name, Some("cam".into()));
    assert!(list.agrees());
}

/// Check that a list without buffers agrees with its closing line.
#[test]
fn an_empty_list() {
    assert!(parse(&whole(&[])).agrees());
}

/// Check that the list does not agree if a row cannot be parsed, so that no buffer is lost
/// silently.
#[test]
fn a_lost_row_shows() {
    let text = whole(&[entry(1, b"a", "", &[]), entry(2, b"b", "", &[])]);
    let broken = String::from_utf8(text).unwrap().replacen("00065536\t", "0006?536\t", 1);
    assert!(!parse(broken.as_bytes()).agrees());
}

/// Check that the fence lines of each kernel change neither name nor devices.
#[test]
fn fences() {
    for fence in [
        "\tExclusive fence: drv timeline signalled\n\tShared fence: drv t unsignalled\n",
        "\twrite fence:drm_sched asahi_sched seq 5809165 signalled\n",
        "\tkernel fence:12:7  signalled\n\tread fence:12:8 t d unsignalled\n",
    ] {
        let list = parse(&whole(&[entry(1, b"cam", fence, &["vgem"])]));
        assert_eq!(list.buffers[0].name, Some("cam".into()), "{fence}");
        assert_eq!(list.buffers[0].attachments, Some(vec!["vgem".into()]), "{fence}");
    }
}

/// Check that a name with a newline is unknown, and not its first half.
#[test]
fn a_broken_row_has_no_name() {
    for name in [&b"cam\nfront"[..], b"cam\n\tAttached Devices:", b"\n\tAttached Devices:", b"cam\n"] {
        let list = parse(&whole(&[entry(1, name, "", &[])]));
        assert_eq!(list.buffers[0].name, None, "{}", name.escape_ascii());
        assert!(list.agrees());
    }
}

proptest! {
    /// Check that no name of an allowed length changes a number or an attachment.
    #[test]
    fn names_forge_nothing(name in proptest::collection::vec(1u8.., 0..32)) {
        let list = parse(&whole(&[entry(1, &name, "", &["vgem"]), entry(2, b"b", "", &[])]));
        prop_assert!(list.agrees());
        prop_assert_eq!(&list.buffers[0].attachments, &Some(vec!["vgem".into()]));
        prop_assert_eq!((list.buffers[0].ino, list.buffers[0].count), (Inode(1), 2));
    }

    /// Check the same for names that are made of words of the list.
    #[test]
    fn names_of_its_own_words_forge_nothing(
        words in proptest::collection::vec(
            prop_oneof![
                Just("\n"), Just("\t"), Just("00000001"), Just("Attached Devices:"), Just("x"), Just("Total 1 devices attached"),
                Just("Total 1 objects, 1 bytes"), Just("\tread fence:"), Just(" "), Just("<none>"),
            ],
            0..6,
        )
    ) {
        let mut name = words.concat().into_bytes();
        name.truncate(31);
        let list = parse(&whole(&[entry(1, &name, "", &["vgem"]), entry(2, b"b", "", &[])]));
        prop_assert!(list.agrees());
        prop_assert_eq!(&list.buffers[0].attachments, &Some(vec!["vgem".into()]));
    }

    /// Check that no bytes make the parser panic.
    #[test]
    fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&text);
    }
}

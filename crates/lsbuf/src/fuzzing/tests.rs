//! Tests the promises of the parsers where there is no fuzzer: with random bytes, and with words
//! that the parsers know in random order.

use proptest::collection::vec;
use proptest::prelude::*;

/// Random bytes, and keywords of the parsers in random order, which random bytes would never
/// produce.
fn keyword_mix() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "\n",
        "\t",
        " ",
        "\0",
        ":",
        "-",
        ")",
        "(",
        "0",
        "1",
        "7",
        "00065536",
        "00000002",
        "00080007",
        "ff",
        "18446744073709551615",
        "18446744073709551616",
        "flags:\t",
        "mnt_id:\t",
        "ino:\t",
        "size:\t",
        "count:\t",
        "exp_name:\t",
        "name:\t",
        "02\n",
        "7\n",
        "system",
        "7f00-7f10",
        " rw-s ",
        "00001000 ",
        "00:0c ",
        "/dmabuf:",
        "\\012",
        "\tAttached Devices:\n",
        "Total ",
        " devices attached\n",
        " objects, ",
        " bytes\n",
        "\tread fence:",
        "<none>",
        "scm_fds: ",
        "UserFiles:\t",
        "UserBufs:\t",
        "    0: ",
        "dmabuf",
        "UNIX",
        "SqMask:\t",
        "UserFiles:\t1\n    0: /",
        "7f000000-7f800000 rw-p 0 0:1 5 /",
        "Anonymous: 8 kB\n",
        "Private_Hugetlb: 2048 kB\n",
        "KernelPageSize: 2048 kB\n",
        "VmFlags: ht\n",
        "30 1 0:40 / /merged rw - overlay none rw,lowerdir=/a:/b,upperdir=/c\n",
        " 02     0",
        "pid ",
        "       1",
        " command ",
        "\t\t0x00000002: 4096 byte GTT imported from ino:7\n",
        "files 1 2\n",
        "vm 2 3\n",
        "socket:[",
        "]",
        "anon_inode:[io_uring]",
        "Uid:\t",
        "0::/",
        "36 35 ",
        "0:12",
        "444d4142 ",
        "heading\n",
        "      5678          0   600                16384    12    12      1     0     0     0     0          0          0          0                 8192                    0\n",
        "25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n",
        " - hugetlbfs ",
        "/dev/shm",
        "\\040",
        "shmem 0:1 7 8192 8 0 2097152 1000",
        " (deleted)",
        "SwapTotal: 8 kB\nSwapFree: 4 kB\n",
        "Shmem: 16 kB\n",
        "Hugetlb: 2048 kB\n",
        "1.000000000",
        "00065536\t00000002\t00080007\t00000002\tsystem\t00000007\t",
        "flags:\t02\nmnt_id:\t9\nsize:\t1\ncount:\t1\nexp_name:\tx\n",
        "7f00-7f10 rw-s 0 0:c 7 /dmabuf:",
        "444d4142 0:12 7 4096 0 1.000000000 1.000000000",
        ") S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0",
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    prop_oneof![vec(piece, 0..16).prop_map(|pieces| pieces.concat()), vec(any::<u8>(), 0..80)]
}

macro_rules! promises {
    ($($parser:ident)*) => {
        proptest! {
            $(
                /// Check that the promises of this parser hold.
                #[test]
                fn $parser(data in keyword_mix()) {
                    super::$parser(&data);
                }
            )*
        }
    };
}

promises! {
    numbers fdinfo fdinfo_table maps map_files smaps bufinfo bufinfo_names gem_info hidden_refs rings fixed_files pending
    process details sharing mount recorded_inode btf segments mounts overlays shm_inode shm_names records
    meminfo
}

#[cfg(feature = "symbols")]
promises! { elf symbols }

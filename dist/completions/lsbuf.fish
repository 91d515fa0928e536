# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lsbuf_global_optspecs
    string join \n o/output= sort= details J/json compact csv r/raw n/noheadings b/bytes human color= p/pid= exporter= name= min-size= unheld deleted from= at= kind= d/dmabuf payers source= strict proc-root= sys-root= pins= h/help V/version
end

function __fish_lsbuf_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lsbuf_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lsbuf_using_subcommand
    set -l cmd (__fish_lsbuf_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lsbuf -n "__fish_lsbuf_needs_command" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l sort -d 'Column to sort by: numbers largest first, text from A to Z' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l details -d 'In JSON, also what else can be read of each process: command line, program, user, limit, unit, container, pod'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -s V -l version -d 'Print version'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "ls" -d 'List every buffer (the default)'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "ps" -d 'List every process that holds a buffer, and what its exit frees'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "sum" -d 'Sum up by command, pod, name and the like'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "show" -d 'Show single buffers in full: each reference, devices, creator'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "reconcile" -d 'Explain what free(1) calls shared, to the page'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "top" -d 'Show the lists on a full screen, again and again, or go through a recording'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "diff" -d 'Compare two answers: what was born, died, grew, has other holders'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "record" -d 'Record what is there, again and again, into a file that --from FILE answers from'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "export" -d 'Write a recording as tables in files, for other engines: NDJSON or Parquet'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "leaks" -d 'Find what is born and does not die: suspects, with the evidence'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "report" -d 'Write a page to look at or to send, or who made the buffers, for flame graphs and pprof'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "metrics" -d 'Print the figures as metrics for Prometheus, once'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "serve" -d 'Serve metrics for Prometheus, and all buffers as JSON, over HTTP'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "trace" -d 'Print what happens to buffers as it happens; of a command also what it left'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "doctor" -d 'Say whether answers are complete here, and what would make them so'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "name" -d 'Set the name of a dma-buf, through an fd of a process that holds it'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "probes" -d 'Let a group see the whole machine: pin BPF iterators, as root'
complete -c lsbuf -n "__fish_lsbuf_needs_command" -f -a "check" -d 'Test whether this kernel behaves as lsbuf assumes'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l sort -d 'Column to sort by: numbers largest first, text from A to Z' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l details -d 'In JSON, also what else can be read of each process: command line, program, user, limit, unit, container, pod'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ls" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l sort -d 'Column to sort by: numbers largest first, text from A to Z' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l details -d 'In JSON, also what else can be read of each process: command line, program, user, limit, unit, container, pod'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand ps" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l by -d 'What the buffers of a group have in common: name, command, cgroup, unit, container, pod, workload (the container in its pod, or the unit), user, exporter, kind, mount; payer: the cgroup that the pages are charged to; and by the flight recorder origin, stack, client: who made it, by which calls, who received it first' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l sort -d 'Column to sort by: numbers largest first, text from A to Z' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand sum" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -s J -l json -d 'JSON, schema lsbuf.snapshot/1, with these buffers only; their lives in a recording have the schema lsbuf.life/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand show" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -s J -l json -d 'JSON, schema lsbuf.reconcile/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand reconcile" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l list -d 'The list to begin with: buffers, processes or groups' -r -f -a "buffers\t'As `lsbuf ls`'
processes\t'As `lsbuf ps`'
groups\t'As `lsbuf sum`'"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l by -d 'What the buffers of a group have in common: a KEY of lsbuf sum' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l every -d 'Time from one scan to the next, or between the samples of a recording that plays' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l reconcile -d 'Also show how much of Shmem is left over (lsbuf reconcile), asked with every Nth scan: it takes a scan of its own' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l count -d 'Stop after that many lists' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l batch -d 'Print the list again and again, for a pipe or a file; of a recording, from --at on'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -s J -l json -d 'JSON, schema lsbuf.snapshot/1, each answer on a line'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand top" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l from -d 'The recording that A and B are times of' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l watch -d 'Run COMMAND and show what was born meanwhile and is still there TIME after it has ended' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l by -d 'Sum up: by process, or by a KEY of lsbuf sum' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l sort -d 'Column to sort by: numbers largest first, text from A to Z' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l fail-on-leftover -d 'Exit with status 4 if the command has succeeded and left something behind'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand diff" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l every -d 'Time from one sample to the next' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l for -d 'Stop after that time; without it and --count, a signal stops it' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l count -d 'Stop after that many samples' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l keep -d 'Delete samples that are older' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l max-size -d 'Delete the oldest samples when FILE gets larger' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -s q -l quiet -d 'Print no progress'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand record" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand export" -l format -d 'ndjson, or parquet if lsbuf was built with it' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand export" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l for -d 'How long to watch' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l every -d 'Time from one sample to the next' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l since -d 'Only from that TIME of the recording on: start (the default), -1h (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l until -d 'Only up to that TIME of the recording' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l fail-on -d 'Exit with status 4 if a group grows' -r -f -a "growing\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s o -l output -d 'Columns to show; +COL,… adds to the default ones' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l sort -d 'Column to sort by: numbers largest first, text from A to Z [default: the worst first]' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l color -d 'Colour: auto (on a terminal, unless NO_COLOR is set), always, never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l command -d 'Only what commands hold that match, such as \'python*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s a -l all -d 'Show every group, not only those that grow'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s q -l quiet -d 'No evidence below the table, and no progress'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s J -l json -d 'JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l compact -d 'JSON on one line, without white space'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l csv -d 'CSV; a \' goes before text that begins with = + - @ or \', so that no spreadsheet takes it for a formula'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s r -l raw -d 'Fields separated by one blank, blanks in them as \\x20'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s n -l noheadings -d 'No headings and no totals'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand leaks" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l pprof -d 'Write a profile for pprof into FILE, with buffers and bytes (inuse_objects, inuse_space); - is standard output' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -s p -l pid -d 'Only what these processes hold: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l exporter -d 'Only dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l name -d 'Only buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l min-size -d 'Only buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l from -d 'Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J printed; - is standard input' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l at -d 'The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in RFC 3339' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l redact -d 'In the page aliases (command-1, path-2) in place of commands, paths, names, pids, users, cgroups and hosts; figures stay'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l folded -d 'Folded stacks, which flame graphs are made of: on each line frames from the outermost inwards, and the bytes that its buffers cost'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l objects -d 'In folded stacks the number of buffers in place of bytes'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l unheld -d 'Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l deleted -d 'Only unlinked files and segments marked for removal'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand report" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l textfile -d 'Write them to FILE, which is replaced at once: for the textfile collector of node_exporter, which wants a name that ends in .prom' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l max-series -d 'The most series of one answer. The workloads with the most memory are kept; the others are added up' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l openmetrics -d 'Print OpenMetrics 1.0.0 in place of Prometheus text'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l listen -d 'Where to listen: ADDRESS:PORT, or unix:PATH. Sockets that systemd hands over come first' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l allow-host -d 'Answer requests for these names of hosts, too. Without it only for localhost and for addresses, so that no web page can reach this server by a name of its own' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l min-interval -d 'Scan at most once in this time; who asks earlier gets the last answer again' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l max-series -d 'The most series of one answer. The workloads with the most memory are kept; the others are added up' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l allow-remote -d 'Listen where other machines can connect. They see every process that holds a buffer: its pid, command, user and cgroup'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand serve" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l unwind -d 'How to find the calls of programs: fp, by frame pointers; dwarf, by the tables in their files, from a copy of the stack, which takes more room and time. For --stacks, --pprof or COMMAND' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l for -d 'Stop after that time; without it a signal or the end of COMMAND stops it' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l to -d 'Write to FILE in place of standard output' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l pprof -d 'At the end write what was made, freed and left as a profile for pprof' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l room -d 'Room for events until they are read; more loses fewer of a storm [default: 8M, and 32M with --unwind dwarf]' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s e -l event -d 'Print these events alone: made, fd, received, mapped, attached, detached, renamed, freed' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l kind -d 'Only of these kinds: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s p -l pid -d 'Only what these processes do: 12,13' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l comm -d 'Only what processes do whose command matches, such as \'gst*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l cgroup -d 'Only what processes do whose cgroup matches, such as \'/system.slice/*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l exporter -d 'Only of dma-bufs of these exporters, by exact name: system,udmabuf' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l name -d 'Only of buffers whose name matches, such as \'cam*\'' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l min-size -d 'Only of buffers of at least this SIZE, such as 10M' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l stacks -d 'Print the calls that led to each event'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l summary -d 'Count events in place of printing them'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l strict -d 'Exit with status 3 if anything was lost'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s J -l json -d 'One JSON object on each line, schema lsbuf.trace/1'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s n -l noheadings -d 'No headings'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s b -l bytes -d 'Sizes in bytes (the default unless on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -l human -d 'Sizes like 8.0M (the default on a terminal)'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s d -l dmabuf -d 'Only of dma-bufs, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand trace" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l kind -d 'Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -s d -l dmabuf -d 'Look for dma-bufs alone, whatever --kind says'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l payers -d 'Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l source -d 'What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries procfs,bufinfo before it loads them' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l proc-root -d 'The procfs to read, or a recorded copy of one' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l sys-root -d 'The sysfs that belongs to it [default: /sys for /proc, else none]' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l clear -d 'Take the name away'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l prefix -d 'Put TEXT before the name that it has'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -s f -l force -d 'Replace the name that it has; also set a name with control characters'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -l strict -d 'Exit with status 3 if the answer is partial'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand name" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and not __fish_seen_subcommand_from install status remove" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and not __fish_seen_subcommand_from install status remove" -f -a "install" -d 'Load the BPF iterators and pin them; replaces those that are pinned'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and not __fish_seen_subcommand_from install status remove" -f -a "status" -d 'Say what is pinned, who may read it, and whether this user can'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and not __fish_seen_subcommand_from install status remove" -f -a "remove" -d 'Remove what is pinned'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from install" -s g -l group -d 'Group that may read them, by name or number; without it, only root may' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from install" -l most -d 'For how many living buffers the recorder has room; each takes 2 KiB of the kernel' -r
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from install" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from install" -l origins -d 'Install the flight recorder too: from now on every answer can say who made a buffer'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from status" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from remove" -l pins -d 'Folder with the pinned BPF iterators' -r -F
complete -c lsbuf -n "__fish_lsbuf_using_subcommand probes; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c lsbuf -n "__fish_lsbuf_using_subcommand check" -s h -l help -d 'Print help'

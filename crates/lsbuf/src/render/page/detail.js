// One buffer in full: everything that the document knows of it. What it does not know is `?`, and
// what it does not have is not there.

/** Why a residual is no exact number, as docs/figures.md says it. */
const REASONS = {
  "not-counted": "the kernel does not count its references, or the count was not read",
  overcounted: "more references were found than the kernel counts",
  "unread-processes": "a process that could not be read may hold it",
  "uncompared-holders": "it is unknown whether two holders share an fd table or an address space",
  "count-moved": "the count changed during the reading, or was read only once",
  "maybe-in-flight": "some references may be in messages, or registered with an io_uring",
  "references-moved": "an fd was closed or moved while the fds were read",
  "task-in-call": "a task was inside a fork, exec, unshare, exit or a blocked send",
  "processes-changed": "processes started or ended in every reading",
  "processes-ran": "the same processes ran in every reading, and may have moved a reference unseen",
  "not-watched": "it is unknown what processes did during the reading",
  "inode-pinned": "something that opens no file refers to its inode",
};

const OWNERS = {
  references: "free when all references are gone",
  queue: "of the queue of the video device that exported it",
  object: "of an object of the driver",
  pages: "free when all references and the memfds with the same pages are gone",
  device: "of the device, which never frees it",
};

/** Yes, no or unknown. */
function yesNo(value) {
  return value === null || value === undefined ? "?" : value ? "yes" : "no";
}

/** References to the kernel in words: how many, how sure that is, and why not. */
function residualInWords(buffer) {
  const { kernel } = buffer.refs;
  const why = buffer.estimate_reason
    ? `${REASONS[buffer.estimate_reason] || "why"} (${visible(buffer.estimate_reason)})`
    : "the reason is not told";
  if (kernel === null) return ["unknown: ", why];
  const refs = counted(kernel, "reference", "references");
  return buffer.estimate ? ["about ", refs, ", an estimate: ", why] : [refs, ", exact"];
}

/** A process as a button that lists what it has. */
function processLink(app, pid, command) {
  const known = app.data.commands.get(pid);
  return el(
    "button",
    { type: "button", class: "link", click: () => app.listProcess(pid) },
    bdi(`${command ?? known ?? "?"}:${number(pid)}`),
  );
}

function joined(list) {
  return list.flatMap((one, nth) => (nth > 0 ? [", ", one] : [one]));
}

function list(numbers) {
  return numbers.length === 0 ? "none" : numbers.map(number).join(" ");
}

function mapping(map) {
  const offset = map.offset === null ? "?" : number(map.offset);
  return el(
    "li",
    null,
    el("code", null, `${visible(map.start)}-${visible(map.end)} ${visible(map.perms)} offset ${offset}`),
  );
}

function holderPart(app, holder) {
  const process = app.data.processes.get(holder.pid);
  const details = process?.details;
  const maps = holder.maps.slice(0, 200);
  return el(
    "section",
    { class: "holder" },
    el("h4", null, processLink(app, holder.pid)),
    pairs([
      [
        "fds",
        holder.fd_table_of ? ["the fd table of ", processLink(app, holder.fd_table_of)] : list(holder.fds),
      ],
      ["O_PATH fds", holder.opaths.length > 0 ? list(holder.opaths) : undefined],
      [
        "threads with fd tables of their own",
        holder.threads?.length > 0
          ? joined(
              holder.threads.map(
                (thread) =>
                  `thread ${number(thread.tid)}: ` +
                  (thread.fd_table_of ? `fd table of ${number(thread.fd_table_of)}` : list(thread.fds)),
              ),
            )
          : undefined,
      ],
      [
        "mappings",
        holder.address_space_of
          ? ["the address space of ", processLink(app, holder.address_space_of)]
          : maps.length === 0
            ? "none"
            : [
                el("ul", { class: "maps" }, ...maps.map(mapping)),
                holder.maps.length > maps.length ? `and ${whole(holder.maps.length - maps.length)} more` : "",
              ],
      ],
      ["runs a program from it", holder.runs ? "yes" : undefined],
      [
        "user",
        process
          ? process.uid === null
            ? "?"
            : `${details?.user ? named(details, "user") : ""} ${number(process.uid)}`.trim()
          : undefined,
      ],
      ["cgroup", process ? bdi(named(process, "cgroup")) : undefined],
      ["unit", details?.workload?.unit ? bdi(named(details.workload, "unit")) : undefined],
      ["container", details?.workload?.container ? bdi(named(details.workload, "container")) : undefined],
      [
        "pod",
        details?.workload?.pod
          ? bdi(`${visible(details.workload.pod.namespace)}/${visible(details.workload.pod.name)}`)
          : undefined,
      ],
      [
        "command line",
        details?.args
          ? bdi((details.args_bytes || details.args.map((word) => visible(word))).join(" "))
          : undefined,
      ],
      ["program", details?.exe ? bdi(named(details, "exe")) : undefined],
    ]),
  );
}

/** A call in a program, with its file and line where they are known. */
function callText(frame) {
  const where = frame.module === null ? visible(frame.build_id ?? "") : named(frame, "module");
  const place = frame.address ?? `${where}+0x${Number(frame.offset ?? 0).toString(16)}`;
  if (frame.functions.length === 0) return [place];
  return frame.functions.map((one) => {
    const file =
      one.file === null ? where : named(one, "file") + (one.line === null ? "" : `:${number(one.line)}`);
    return `${named(one, "name")}${one.inlined ? " (inlined)" : ""}${file ? ` in ${file}` : ""}`;
  });
}

function stackPart(stack) {
  if (!stack) return el("p", null, "Its calls were not read.");
  const calls = [
    ...stack.kernel.map((call) =>
      el(
        "li",
        { class: "in-kernel" },
        bdi(`${named(call, "function")}${call.module ? ` [${named(call, "module")}]` : ""}`),
        " in the kernel",
      ),
    ),
    ...stack.user.flatMap(callText).map((text) => el("li", null, bdi(text))),
  ];
  const ends = {
    truncated: "The calls outside of the last one are missing.",
    unreadable: "The kernel could not read the program's calls.",
    kernel: "The kernel itself made it.",
  };
  return el(
    "div",
    null,
    el("p", { class: "hint" }, "Innermost call first."),
    el("ol", { class: "stack" }, ...calls),
    ends[stack.user_end] ? el("p", { class: "hint" }, ends[stack.user_end]) : null,
  );
}

function originPart(app, origin) {
  if (origin.state === "before") return [el("p", null, "It is older than the flight recorder.")];
  if (origin.state === "unknown")
    return [
      el(
        "p",
        null,
        `? (${origin.why === "lost" ? "the record may be lost" : "the recorder does not see such births"})`,
      ),
    ];
  const { client } = origin;
  return [
    pairs([
      ["made by", processLink(app, origin.pid, named(origin, "command"))],
      ["thread", bdi(`${named(origin, "thread")}:${number(origin.tid)}`)],
      ["user", number(origin.uid)],
      ["at", moment(origin.at)],
      [
        "for",
        client
          ? client.state === "received"
            ? [processLink(app, client.pid, named(client, "command")), ", which received it first"]
            : `? (${visible(client.why ?? client.state).replace("_", " ")})`
          : undefined,
      ],
    ]),
    stackPart(origin.stack),
  ];
}

function payersPart(payers) {
  const row = (what, bytes, note) => [what, exactly(bytes), note];
  const rows = payers.cgroups.map((one) =>
    row(bdi(named(one, "cgroup")), one.bytes, one.removed ? "removed" : ""),
  );
  if (payers.nobody > 0) rows.push(row("charged to no cgroup", payers.nobody, ""));
  if (payers.swapped > 0) rows.push(row("in swap", payers.swapped, "payer unknown"));
  if (payers.unknown > 0) rows.push(row("?", payers.unknown, "could not be read"));
  return plainTable(
    "Who pays for its pages",
    [{ title: "Cgroup" }, { title: "Bytes", right: true }, { title: "" }],
    rows,
  );
}

/** Fills an element with everything that is known of a row's buffer. */
function showDetail(app, box, row, close) {
  const { buffer } = row;
  const { refs, segment } = buffer;
  const title = el("h2", { tabindex: -1 }, bdi(row.name || "unnamed"));
  const part = (heading, ...content) => el("section", null, el("h3", null, heading), ...content);
  const parts = [
    pairs([
      ["kind", visible(buffer.kind)],
      ["inode", `${number(buffer.ino)}${buffer.dev ? ` on device ${visible(buffer.dev)}` : ""}`],
      ["IPC namespace", buffer.ipc_namespace ? number(buffer.ipc_namespace) : undefined],
      ["exporter", buffer.kind === "dmabuf" ? bdi(row.exporter ?? "?") : undefined],
      ["size", exactly(buffer.size)],
      ["charged", CHARGED.has(buffer.kind) ? exactly(buffer.charged) : undefined],
      ["in swap", CHARGED.has(buffer.kind) ? exactly(buffer.swapped) : undefined],
      ["cost", exactly(row.cost)],
      ["huge pages", buffer.huge_page ? exactly(buffer.huge_page) : undefined],
      ["unlinked", buffer.deleted === undefined ? undefined : yesNo(buffer.deleted)],
      ["created", buffer.created_at === undefined ? undefined : moment(buffer.created_at)],
      ["creator's user id", row.isFile ? number(buffer.owner) : number(buffer.creator_uid)],
      ["shape as a leak", row.shape ? visible(row.shape) : undefined],
      [
        "memory",
        buffer.memory_owner
          ? OWNERS[buffer.memory_owner] || visible(buffer.memory_owner)
          : row.isFile
            ? undefined
            : "?",
      ],
      ["seals", buffer.seals ? buffer.seals.map((seal) => visible(seal)).join(" ") || "none" : undefined],
      [
        "attached to",
        buffer.attachments?.length > 0
          ? bdi((buffer.attachments_bytes || buffer.attachments.map((one) => visible(one))).join(", "))
          : undefined,
      ],
      [
        "held",
        row.isFile
          ? buffer.proven
            ? "by no process, and nothing in the kernel has it open"
            : "nobody was seen to hold it"
          : undefined,
      ],
    ]),
  ];
  if (refs) {
    parts.push(
      part(
        "References",
        pairs([
          ["counted by the kernel", number(buffer.count)],
          ["fds", number(refs.fd)],
          [
            "mappings",
            number(refs.map) +
              (refs.private_map === 0 ? "" : `, ${number(refs.private_map)} of them private`),
          ],
          ["in messages", number(refs.in_flight)],
          ["in io_urings", number(refs.io_uring)],
          ["programs", number(refs.exe)],
          ["O_PATH fds, not counted", refs.opath > 0 ? number(refs.opath) : undefined],
          ["kernel", residualInWords(buffer)],
          [
            "candidates for these",
            buffer.candidates.length > 0
              ? joined(buffer.candidates.map((pid) => processLink(app, pid)))
              : undefined,
          ],
        ]),
      ),
    );
  }
  const inKernel = [
    ...(buffer.kernel_holders || []).map((one) =>
      el(
        "li",
        null,
        `${visible(one.what)} `,
        bdi(named(one, "name")),
        one.pid === null ? "" : " of ",
        one.pid === null ? "" : processLink(app, one.pid),
        one.proven ? "" : " (a candidate)",
      ),
    ),
    ...(buffer.handles || []).map((one) =>
      el(
        "li",
        null,
        `GEM handle ${number(one.handle)} of `,
        processLink(app, one.pid, named(one, "comm")),
        one.imported ? " (imported)" : " (exported)",
      ),
    ),
  ];
  if (inKernel.length > 0) parts.push(part("In the kernel", el("ul", null, ...inKernel)));
  if (segment) {
    parts.push(
      part(
        "Segment",
        pairs([
          ["key", `0x${Number(segment.key).toString(16)}`],
          ["owner", number(segment.owner)],
          [
            "created by",
            [
              processLink(
                app,
                segment.creator_pid,
                segment.creator_comm === undefined ? undefined : named(segment, "creator_comm"),
              ),
            ],
          ],
          [
            "last used by",
            [
              processLink(
                app,
                segment.last_pid,
                segment.last_comm === undefined ? undefined : named(segment, "last_comm"),
              ),
            ],
          ],
          ["attachments", number(segment.attached)],
          ["in memory", exactly(segment.rss)],
          ["in swap", exactly(segment.swap)],
          ["to be removed", yesNo(segment.removed)],
          [
            "removes it",
            segment.remove_command ? el("code", null, visible(segment.remove_command)) : undefined,
          ],
        ]),
      ),
    );
  }
  if (buffer.same_memory === null)
    parts.push(part("Same memory", el("p", null, "? Other buffers may have the same memory.")));
  else if (buffer.same_memory?.length > 0) {
    parts.push(
      part(
        "Same memory",
        el(
          "ul",
          null,
          ...buffer.same_memory.map((one) =>
            el("li", null, `${visible(one.kind)} ${number(one.ino)}: ${exactly(one.bytes)}`),
          ),
        ),
      ),
    );
  }
  if (buffer.origin) parts.push(part("Origin", ...originPart(app, buffer.origin)));
  if (buffer.payers) parts.push(part("Payer", payersPart(buffer.payers)));
  const most = 100;
  if (!row.isFile) {
    parts.push(
      part(
        `Holders: ${counted(buffer.holders.length, "process", "processes")}`,
        ...buffer.holders.slice(0, most).map((holder) => holderPart(app, holder)),
        buffer.holders.length > most
          ? el(
              "p",
              { class: "hint" },
              `${whole(buffer.holders.length - most)} more are in the data of this page.`,
            )
          : null,
      ),
    );
  }
  box.replaceChildren(
    el(
      "div",
      { class: "detail-head" },
      title,
      el("button", { type: "button", class: "close", "aria-label": "Close the buffer", click: close }, "×"),
    ),
    ...parts,
  );
  box.hidden = false;
  box.scrollTop = 0;
  title.focus();
}

-- What is known at a sample, in words: SELECT * FROM buffer_at WHERE sample = 17. The views that
-- these rest on (buffer_state_at and so on) have a table's rows at each sample.

CREATE VIEW buffer_at AS
    SELECT state.sample, buffer.id AS buffer, buffer.kind, buffer.dev, buffer.ino,
           buffer.ipc_namespace, state.created_at, state.name, state.exporter, state.size,
           state.charged, state.swapped, state.huge_page, state.deleted, state.creator_uid,
           state.count, state.fd, state.map, state.opath, state.in_flight, state.io_uring,
           state.exe, state.kernel, state.estimate_reason, state.leak_shape, state.parts
    FROM buffer_state_at AS state JOIN buffer ON buffer.id = state.buffer;

CREATE VIEW process_at AS
    SELECT state.sample, process.id AS process, process.pid, process.start_time, state.comm,
           state.uid, state.cgroup, state.sync_files, state.details
    FROM process_state_at AS state JOIN process ON process.id = state.process;

CREATE VIEW holder_at AS
    SELECT held.sample, held.buffer, held.process, process.pid, process.start_time, held.fd,
           held.map, held.opath, held.mapped, held.runs, held.fds, held.opaths, held.maps,
           held.threads, held.fd_table_of, held.address_space_of
    FROM holding_at AS held JOIN process ON process.id = held.process;

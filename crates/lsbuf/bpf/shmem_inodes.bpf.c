/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists every inode of shared memory that is in the kernel's lists and that somebody holds, with
 * its mappings: memfds, System V segments, shared anonymous memory, memory of graphics drivers, and
 * the files of every tmpfs, devtmpfs and hugetlbfs. It does not matter who holds it, in which
 * namespace, or whether the filesystem is mounted. Files that have a name and that nobody holds are
 * only counted.
 *
 * The kernel has no iterator for this. The program is called once for each element of an empty map
 * (`iter/bpf_map_elem`). Each call is a step, and goes on where the last one stopped: from
 * superblock to superblock (`s_list`), from inode to inode (`s_inodes`), from mapping to mapping
 * (`i_mmap`). So no mapping of anything else is looked at.
 *
 * The lists are walked without their locks. Within a step nothing is freed that was in a list,
 * because inodes and superblocks are freed after an RCU grace period. Between two steps all of it
 * can be freed, so a step begins by finding out whether the place where the last one stopped is
 * still in its list. New inodes are added at the head of the list, and the walk goes from the head
 * to the tail. If an inode was removed, the walk goes on from one that it saw before, and so passes
 * nothing over. It may then write an inode twice.
 *
 * A tree of mappings can change so that the walk misses a mapping. Whoever changed it was running
 * meanwhile, and the reference counts show that something was missed. A mapping is written only if
 * it is one of the inode's: a freed mapping can be another file's by now.
 */
#include "shmem.h"

#define SB_KERNMOUNT (1 << 22)
/* The longest path, which is no page size, and the longest name with a NUL. */
#define PATH_ROOM 4096
#define NAME_ROOM 256

/*
 * So many moves are made in one step, while other work that the kernel has for this processor may
 * wait, and so many steps in one reading.
 */
#define MOST_MOVES 2048
#define MOST_STEPS 16384
/* So many names of one inode, and so many folders above it, are looked at. */
#define MOST_ALIASES 16
#define MOST_FOLDERS 64
/* How often the walk begins a list again before it gives the list up. */
#define MOST_RESTARTS 64

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct shmem_inode_info {
	u32 seals;
	u64 swapped;
	struct timespec64 i_crtime;
	struct inode vfs_inode;
};

struct hugetlbfs_inode_info {
	struct inode vfs_inode;
	u32 seals;
};

#pragma clang attribute pop

/* What was counted on a filesystem and not listed. */
struct unlisted {
	/* Regular files that nobody holds. */
	u64 files;
	u64 pages;
	u64 swapped;
	/* Pages of folders and symbolic links. */
	u64 other_pages;
};

/* A filesystem of shared memory. It follows its inodes. */
struct shm_filesystem {
	struct head head;
	u64 filesystem;
	u64 magic;
	struct unlisted unlisted;
	u32 dev;
	/* 1 if the kernel has mounted it for itself. */
	u32 kernels;
};

/* The record before the last. */
struct shm_walk {
	struct head head;
	/* 1 if inodes, or mappings of an inode, may be missing. */
	u32 inodes_cut;
	u32 mappings_cut;
};

/* So many inodes are remembered: the last one, and of those before every 16th. */
#define SEEN 8

/* Where the walk is. */
struct place {
	struct super_block *fs;
	/* The superblock before that in the list. */
	struct super_block *fs_before;
	u64 magic;
	u64 flags;
	struct inode *seen[SEEN];
	u64 numbers[SEEN];
	u64 nth;
	/* The id of seen[0]. */
	u64 object;
	/* Where it is among the mappings of seen[0]; null: not there. */
	struct rb_node *node;
	/* The child from which it comes up to `node`, or null if it comes down to `node`. */
	struct rb_node *from;
	/* By which `node` is known again. */
	u64 start;
	struct mm_struct *mm;
	struct unlisted unlisted;
	u32 in_filesystem;
	u32 dev;
	u32 restarts;
	u32 inodes_cut;
	u32 mappings_cut;
	u32 done;
};

/*
 * Where a step began and where it stopped. The kernel repeats a step (seq_num) whose records did
 * not fit.
 */
struct cursor {
	u64 step;
	struct place begin;
	struct place end;
};

/* The cursors of the readings under way, by session_id. */
struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[1024];
	u64 *key;
	struct cursor *value;
} cursors SEC(".maps");

/* Its elements are the steps. */
struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[MOST_STEPS];
	u32 *key;
	u64 *value;
} steps SEC(".maps");

/* Where in `raw` the inode begins. What the filesystem keeps beside it may be before it. */
#define INODE_AT 512

/*
 * Memory for a step, which does not fit on the stack. Each piece is used by one run of the program
 * at a time, whatever else runs on this or another processor. A run is never stopped half way, so
 * it always returns its piece.
 */
#define PIECES 16

struct piece {
	u64 taken;
	struct cursor cursor;
	/* A copy of the inode. */
	u8 raw[INODE_AT + 2048];
	struct shm_inode found;
	/* The names, each with a NUL. The last may begin at PATH_ROOM - 1. */
	char path[PATH_ROOM + NAME_ROOM];
};

struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[PIECES];
	u32 *key;
	struct piece *value;
} pieces SEC(".maps");

static always_inline struct piece *take_piece(void)
{
	for (u32 nth = 0; nth < PIECES; nth++) {
		u32 key = nth;
		struct piece *piece = map_lookup(&pieces, &key);

		if (piece && !__sync_val_compare_and_swap(&piece->taken, 0, 1))
			return piece;
	}
	return 0;
}

static always_inline void return_piece(struct piece *piece)
{
	__sync_val_compare_and_swap(&piece->taken, 1, 0);
}

/* The fields of the copied inode, and of the structure that it is in. */
#define of_inode(type, field) (*(type *)(piece->raw + INODE_AT + place_of(((struct inode *)0)->field)))
#define of_shmem(type, field)                                                                \
	(*(type *)(piece->raw + INODE_AT - place_of(((struct shmem_inode_info *)0)->vfs_inode) + \
		   place_of(((struct shmem_inode_info *)0)->field)))

/* The most that one move writes: an inode with the longest path. */
#define MOST_WRITTEN (sizeof(struct shm_inode) + PATH_ROOM)
/* More than what the last records of a reading take. */
#define ENDING 64

struct walk {
	struct seq_file *seq;
	struct piece *piece;
	/* A superblock that is in the list as long as the iterator is open: the iterator's own. */
	struct super_block *anchor;
};

/* How much room is left in what the kernel keeps for one read. */
static always_inline u64 room(struct seq_file *seq)
{
	u64 size = seq->size, count = seq->count;

	return size > count ? size - count : 0;
}

static always_inline u64 next_of(const void *links)
{
	u64 next = 0;

	probe_read(&next, sizeof(next), links);
	return next;
}

static always_inline void begin_inodes(struct place *place)
{
	forget(place->seen);
	forget(place->unlisted);
	place->nth = 0;
	place->node = 0;
}

/* Begins the inodes of a filesystem again, or gives them up. */
static always_inline void restart_inodes(struct place *place)
{
	begin_inodes(place);
	if (place->restarts++ >= MOST_RESTARTS) {
		place->inodes_cut = 1;
		place->in_filesystem = 0;
	}
}

/* Goes on to the next superblock. */
static never_inline long next_filesystem(struct walk *walk)
{
	struct piece *piece = walk->piece;
	u64 next, self, fs = 0, anchor = 0;
	struct super_block *of;
	struct place *place;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	place->in_filesystem = 0;
	of = place->fs;
	probe_read(&anchor, sizeof(anchor), &walk->anchor);
	self = next_of(&place->fs) + place_of(of->s_list);
	next = next_of((void *)self);
	if (next && next != self) {
		place->fs_before = place->fs;
	} else {
		/* It was removed meanwhile. The one before it may still be in the list. */
		of = place->fs_before;
		self = next_of(&place->fs_before) + place_of(of->s_list);
		next = of ? next_of((void *)self) : 0;
		if (!next || next == self) {
			place->fs = walk->anchor;
			place->fs_before = 0;
			if (place->restarts++ < MOST_RESTARTS)
				return 0;
			place->inodes_cut = place->done = 1;
			return 1;
		}
	}
	fs = next - place_of(of->s_list);
	probe_read(&place->fs, sizeof(place->fs), &fs);
	if (fs != anchor)
		return 0;
	place->done = 1;
	return 1;
}

/* Begins a filesystem, if it is one of shared memory. */
static always_inline long begin_filesystem(struct walk *walk, struct place *place)
{
	struct super_block *fs = place->fs, *of = 0;
	struct dentry *root = 0;
	u64 magic = 0, own = 0, its = 0;

	peek(magic, fs->s_magic);
	if (!is_listed(magic))
		return next_filesystem(walk);
	/* The head of the list is no superblock, and a new superblock has no root yet. */
	peek(root, fs->s_root);
	peek(of, root->d_sb);
	probe_read(&own, sizeof(own), &fs);
	probe_read(&its, sizeof(its), &of);
	if (own != its)
		return next_filesystem(walk);
	place->magic = magic;
	peek(place->flags, fs->s_flags);
	peek(place->dev, fs->s_dev);
	begin_inodes(place);
	place->in_filesystem = 1;
	return 0;
}

/* Not inlined, because its caller has little stack left. */
static never_inline long end_filesystem(struct walk *walk)
{
	struct piece *piece = walk->piece;
	record(shm_filesystem, found);
	struct place *place;
	u64 address = 0;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	probe_read(&address, sizeof(address), &place->fs);
	found.filesystem = mixed(address);
	found.magic = place->magic;
	found.dev = place->dev;
	found.kernels = !!(place->flags & SB_KERNMOUNT);
	found.unlisted = place->unlisted;
	put(walk->seq, found, SHM_FILESYSTEM);
	return next_filesystem(walk);
}

/*
 * The links of the inode after the last one, or after the newest of those that are still in the
 * list; 0: none is.
 */
static always_inline u64 next_inode(struct place *place)
{
	struct inode *of = 0;

	for (u32 nth = 0; nth < SEEN; nth++) {
		u64 self = next_of(&place->seen[nth]), next;

		if (!self)
			break;
		self += place_of(of->i_sb_list);
		next = next_of((void *)self);
		if (next && next != self)
			return next;
	}
	return 0;
}

static always_inline void remember(struct place *place, u64 inode, u64 number)
{
	if (!(place->nth++ & 15))
		for (u32 nth = SEEN - 1; nth > 0; nth--) {
			place->seen[nth] = place->seen[nth - 1];
			place->numbers[nth] = place->numbers[nth - 1];
		}
	probe_read(&place->seen[0], sizeof(place->seen[0]), &inode);
	place->numbers[0] = number;
}

static always_inline u64 place_of_alias(void)
{
	struct dentry___7_2 *new = 0;
	struct dentry *old = 0;

	return exists(new->d_alias) ? place_of(new->d_alias) : place_of(old->d_u.d_alias);
}

/*
 * The state of the walk over the dentries of an inode: its names, if it has several. A dentry is
 * hashed as long as the file has that name in a folder, and then the filesystem keeps one reference
 * to it. Those of memfds, unlinked files and O_TMPFILE files are not hashed.
 */
struct aliases {
	u64 next;
	/* One of them, a hashed one if there is any. */
	u64 dentry;
	u64 opens;
	u32 hashed;
	u32 unused;
};

static long one_alias(u32 at, struct aliases *aliases)
{
	u64 links = aliases->next, dentry, hashed = 0;
	struct dentry *of;
	s32 count = 0;

	if (!links)
		return 1;
	dentry = links - place_of_alias();
	probe_read(&of, sizeof(of), &dentry);
	peek(hashed, of->d_hash.pprev);
	peek(count, of->d_lockref.count);
	aliases->next = next_of((void *)links);
	/* A dentry that is being freed has a negative count. */
	if (count > !!hashed)
		aliases->opens = unknown(&aliases->opens) + count - !!hashed;
	if (!aliases->dentry || (hashed && !aliases->hashed))
		aliases->dentry = dentry;
	if (hashed)
		aliases->hashed = 1;
	return 0;
}

/* The state of the walk over the names of a path, from its end. */
struct names {
	struct piece *piece;
	u64 dentry;
	u64 length;
	u32 done;
	u32 unused;
};

static long one_name(u32 at, struct names *names)
{
	u64 parent = 0, own, length = unknown(&names->length);
	const unsigned char *name = 0;
	struct piece *piece = names->piece;
	struct dentry *of;
	long copied;

	if (!piece)
		return 1;
	own = names->dentry;
	probe_read(&of, sizeof(of), &own);
	peek(parent, of->d_parent);
	/* The root of a filesystem is its own parent, and so is a file that is in no folder. */
	if (at && (!parent || parent == own)) {
		names->done = 1;
		return 1;
	}
	if (length >= PATH_ROOM)
		return 1;
	peek(name, of->d_name.name);
	/*
	 * The compiler knows that it is small enough and would drop the mask, but the verifier
	 * needs it.
	 */
	asm volatile("" : "+r"(length));
	length &= PATH_ROOM - 1;
	copied = probe_read_str(piece->path + length, NAME_ROOM, name);
	if (copied <= 0)
		return 1;
	names->length = length + copied;
	names->dentry = parent;
	return 0;
}

/* Copies the names into the piece. Returns their length together. */
static never_inline u64 copy_names(struct walk *walk, u64 dentry)
{
	struct names names = { .piece = walk->piece, .dentry = dentry };
	u64 length;

	loop(MOST_FOLDERS, one_name, &names, 0);
	length = unknown(&names.length);
	if (length >= PATH_ROOM)
		return 0;
	if (names.done && names.piece)
		names.piece->found.flags |= SHM_PATH;
	return length;
}

/* Describes the inode by its copy. */
static always_inline void describe_copy(struct piece *piece, struct place *place)
{
	struct inode *inode = place->seen[0];
	struct shm_inode *found = &piece->found;

	forget(*found);
	found->object = object_id(inode);
	found->magic = place->magic;
	found->dev = place->dev;
	found->ino = place->numbers[0];
	found->size = of_inode(u64, i_size);
	found->blocks = of_inode(u64, i_blocks);
	found->uid = of_inode(u32, i_uid.val);
	found->links = of_inode(u32, i_nlink);
	found->block_bits = of_inode(u8, i_blkbits);
	found->inode_count = of_inode(u32, i_count.counter);
	if (place->magic == TMPFS_MAGIC) {
		found->seals = of_shmem(u32, seals);
		found->swapped = of_shmem(u64, swapped);
		found->pages = of_inode(u64, i_data.nrpages);
		found->flags |= SHM_SEALS | SHM_PAGES;
		if (exists(((struct shmem_inode_info *)0)->i_crtime)) {
			found->created = of_shmem(s64, i_crtime.tv_sec);
			found->created_ns = of_shmem(s64, i_crtime.tv_nsec);
			found->flags |= SHM_CREATED;
		}
	} else {
		struct hugetlbfs_inode_info *info = container(inode, struct hugetlbfs_inode_info, vfs_inode);

		if (exists(info->seals)) {
			peek(found->seals, info->seals);
			found->flags |= SHM_SEALS;
		}
	}
}

/* Writes the inode of which the piece has a copy, unless it is only counted. */
static never_inline long see_inode(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct aliases aliases = {};
	struct place *place;
	struct dentry *of;
	u64 parent = 0;
	u32 text;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	aliases.next = of_inode(u64, i_dentry.first);
	if (aliases.next) {
		one_alias(0, &aliases);
		if (aliases.next)
			loop(MOST_ALIASES, one_alias, &aliases, 0);
	}
	if (!aliases.opens && !of_inode(u64, i_data.i_mmap.rb_root.rb_node)) {
		place->unlisted.files++;
		place->unlisted.pages += of_inode(u64, i_data.nrpages);
		if (place->magic == TMPFS_MAGIC)
			place->unlisted.swapped += of_shmem(u64, swapped);
		return 0;
	}
	describe_copy(piece, place);
	place->object = piece->found.object;
	if (!aliases.next) {
		piece->found.opens = aliases.opens;
		piece->found.flags |= SHM_OPENS;
	}
	probe_read(&of, sizeof(of), &aliases.dentry);
	peek(parent, of->d_parent);
	if (parent == aliases.dentry && place->flags & SB_KERNMOUNT)
		piece->found.flags |= SHM_KERNELS;
	text = copy_names(walk, aliases.dentry);
	asm volatile("" : "+r"(text));
	text &= PATH_ROOM - 1;
	piece->found.head.kind = SHM_INODE;
	piece->found.head.size = sizeof(piece->found) + text;
	seq_write(walk->seq, &piece->found, sizeof(piece->found) + text);
	place->node = of_inode(struct rb_node *, i_data.i_mmap.rb_root.rb_node);
	place->from = 0;
	return 0;
}

/* Writes a mapping. Returns 0 if it is none of this inode's. */
static never_inline int write_mapping(struct walk *walk, struct vm_area_struct *vma)
{
	struct piece *piece = walk->piece;
	struct task_struct *owner = 0;
	struct mm_struct *mm = 0;
	struct file *file = 0;
	record(shm_vma, found);
	u64 flags = 0, of = 0;

	if (!piece)
		return 0;
	peek(file, vma->vm_file);
	peek(of, file->f_inode);
	if (!of || of != next_of(&piece->cursor.end.seen[0]))
		return 0;
	found.object = piece->cursor.end.object;
	found.file = file_id(file);
	/* references() leaves out the iterator's own reference, but here it holds none. */
	found.count = references(file, 0) + 1;
	peek(mm, vma->vm_mm);
	peek(found.range.start, vma->vm_start);
	peek(found.range.end, vma->vm_end);
	peek(found.range.pgoff, vma->vm_pgoff);
	peek(flags, vma->vm_flags);
	found.range.flags = flags;
	found.range.mm = mixed((u64)mm);
	if (exists(mm->owner)) {
		peek(owner, mm->owner);
		peek(found.range.tgid, owner->tgid);
	}
	if (piece->cursor.end.flags & SB_KERNMOUNT)
		found.ipc = ipc_of(file);
	put(walk->seq, found, SHM_VMA);
	return 1;
}

/* One move through the tree of mappings: down to a child, or up to the parent. */
static never_inline long see_mapping(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct rb_node *node, *from;
	struct rb_node links = {};
	struct place *place;

	if (!piece)
		return 1;
	place = &piece->cursor.end;
	node = place->node;
	from = place->from;
	probe_read(&links, sizeof(links), node);
	if (!from) {
		if (!write_mapping(walk, container(node, struct vm_area_struct, shared.rb))) {
			place->mappings_cut = 1;
			place->node = 0;
			return 0;
		}
		if (links.rb_left) {
			place->node = links.rb_left;
			return 0;
		}
	}
	if (links.rb_right && from != links.rb_right) {
		place->node = links.rb_right;
		place->from = 0;
		return 0;
	}
	place->from = node;
	place->node = (struct rb_node *)(links.__rb_parent_color & ~3ULL);
	return 0;
}

/* One move: to the next superblock, inode or mapping. */
static long move(u32 at, struct walk *walk)
{
	struct piece *piece = walk->piece;
	u64 next, head, own;
	struct super_block *fs;
	struct inode *inode = 0;
	struct place *place;
	u32 mode;

	if (!piece || room(walk->seq) < MOST_WRITTEN + ENDING)
		return 1;
	place = &piece->cursor.end;
	if (place->node)
		return see_mapping(walk);
	if (!place->in_filesystem)
		return begin_filesystem(walk, place);
	fs = place->fs;
	own = next_of(&place->fs);
	head = own + place_of(fs->s_inodes);
	next = place->seen[0] ? next_inode(place) : next_of((void *)head);
	if (!next) {
		restart_inodes(place);
		return 0;
	}
	if (next == head)
		return end_filesystem(walk);
	next -= place_of(inode->i_sb_list);
	probe_read(&inode, sizeof(inode), &next);
	/*
	 * All fields at once: several reads of less take as long each. What a tmpfs keeps of an
	 * inode is in front of it.
	 */
	if (place->magic == TMPFS_MAGIC)
		probe_read(piece->raw + INODE_AT - place_of(((struct shmem_inode_info *)0)->vfs_inode),
			   place_of(((struct shmem_inode_info *)0)->vfs_inode) + place_of(inode->i_data.nrpages) + 8,
			   (char *)inode - place_of(((struct shmem_inode_info *)0)->vfs_inode));
	else
		probe_read(piece->raw + INODE_AT, place_of(inode->i_data.nrpages) + 8, inode);
	if (of_inode(u64, i_sb) != own) {
		restart_inodes(place);
		return 0;
	}
	remember(place, next, of_inode(u64, i_ino));
	mode = of_inode(u16, i_mode);
	if ((mode & S_IFMT) == S_IFREG)
		return see_inode(walk);
	place->unlisted.other_pages += of_inode(u64, i_data.nrpages);
	return 0;
}

struct search {
	u64 at;
	u64 anchor;
	u64 fs;
	u64 before;
	u32 has_fs;
	u32 has_before;
};

static long one_filesystem(u32 at, struct search *search)
{
	struct super_block *of = 0;
	u64 self = search->at + place_of(of->s_list), next = next_of((void *)self);

	if (search->at == search->fs) {
		search->has_fs = 1;
		return 1;
	}
	if (search->at == search->before)
		search->has_before = 1;
	if (!next || next == self)
		return 1;
	search->at = next - place_of(of->s_list);
	return search->at == search->anchor;
}

/* Whether an inode is still in the list of its superblock. */
static always_inline int is_in_list(struct place *place, u32 nth)
{
	struct inode *inode = place->seen[nth];
	u64 of = 0, number = 0, self, next, back = 0;

	self = next_of(&place->seen[nth]) + place_of(inode->i_sb_list);
	peek(of, inode->i_sb);
	peek(number, inode->i_ino);
	next = next_of((void *)self);
	if (!next || next == self || of != next_of(&place->fs) || number != place->numbers[nth])
		return 0;
	probe_read(&back, sizeof(back), (char *)next + 8);
	return back == self;
}

/* Whether a mapping is still one of this inode, and the same one. */
static always_inline int is_in_tree(struct place *place)
{
	struct vm_area_struct *vma = container(place->node, struct vm_area_struct, shared.rb);
	struct rb_node links = {};
	struct file *file = 0;
	u64 of = 0, start = 0, mm = 0, from;

	peek(file, vma->vm_file);
	peek(of, file->f_inode);
	peek(start, vma->vm_start);
	peek(mm, vma->vm_mm);
	probe_read(&links, sizeof(links), place->node);
	from = next_of(&place->from);
	return of == next_of(&place->seen[0]) && start == place->start && mm == next_of(&place->mm) &&
	       (!from || from == (u64)links.rb_left || from == (u64)links.rb_right);
}

/* Finds the place again where the last step stopped, or one before it. */
static never_inline int find_place(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct search search = {};
	struct place *place;

	if (!piece)
		return 0;
	place = &piece->cursor.end;
	probe_read(&search.at, sizeof(search.at), &walk->anchor);
	search.anchor = search.at;
	search.fs = next_of(&place->fs);
	search.before = next_of(&place->fs_before);
	loop(1 << 16, one_filesystem, &search, 0);
	if (!search.has_fs) {
		place->in_filesystem = 0;
		place->node = 0;
		if (search.has_before) {
			/* What follows it comes next. */
			place->fs = place->fs_before;
			place->fs_before = 0;
			next_filesystem(walk);
		} else {
			place->fs = walk->anchor;
			place->fs_before = 0;
			if (place->restarts++ >= MOST_RESTARTS)
				place->inodes_cut = place->done = 1;
		}
		return 0;
	}
	if (!place->in_filesystem || !place->seen[0])
		return 0;
	if (is_in_list(place, 0)) {
		if (place->node && !is_in_tree(place)) {
			/* All of its mappings once more. */
			place->node = 0;
			place->from = 0;
			peek(place->node, place->seen[0]->i_data.i_mmap.rb_root.rb_node);
			place->mappings_cut |= place->restarts++ >= MOST_RESTARTS;
			if (place->mappings_cut)
				place->node = 0;
		}
		return 0;
	}
	if (place->node)
		place->node = 0;
	for (u32 nth = 1; nth < SEEN; nth++) {
		if (!place->seen[nth])
			break;
		if (is_in_list(place, nth)) {
			place->seen[0] = place->seen[nth];
			place->numbers[0] = place->numbers[nth];
			return 0;
		}
	}
	restart_inodes(place);
	return 0;
}

static never_inline int write_ending(struct bpf_iter_meta *meta, u32 inodes_cut, u32 mappings_cut)
{
	record(shm_walk, found);

	found.inodes_cut = inodes_cut;
	found.mappings_cut = mappings_cut;
	put(meta->seq, found, SHM_WALK);
	write_end(meta);
	return 0;
}

struct context {
	struct bpf_iter_meta *meta;
	void *map;
	void *key;
	void *value;
};

RECORDS(struct shm_inode shm_inode; struct shm_vma shm_vma; struct shm_filesystem shm_filesystem; struct shm_walk shm_walk; struct end end;);

SEC("iter/bpf_map_elem")
int inodes(struct context *context)
{
	struct bpf_iter_meta *meta = context->meta;
	struct seq_file *seq = meta->seq;
	u64 session = meta->session_id, step = meta->seq_num;
	struct cursor *last = map_lookup(&cursors, &session);
	struct walk walk = { .seq = seq };
	struct inode *inode = 0;
	struct file *file = 0;
	struct piece *piece;
	struct place *place;

	if (!context->value || (step && !last)) {
		/* There are no steps left, or the cursor was lost. */
		if (!last || !last->end.done)
			write_ending(meta, 1, 1);
		return 0;
	}
	/* After the end, ends the read, too, if it has something to return. */
	if (last && last->end.done && last->step < step)
		return !!seq->count;
	/* Ends the read. The next one begins with this step. */
	if (room(seq) < MOST_WRITTEN + ENDING)
		return 1;
	piece = take_piece();
	if (!piece)
		return 1;
	walk.piece = piece;
	place = &piece->cursor.end;
	if (!last)
		forget(piece->cursor);
	else if (last->step == step)
		probe_read(&piece->cursor.begin, sizeof(piece->cursor.begin), &last->begin);
	else
		probe_read(&piece->cursor.begin, sizeof(piece->cursor.begin), &last->end);
	piece->cursor.step = step;
	probe_read(place, sizeof(*place), &piece->cursor.begin);
	peek(file, seq->file);
	peek(inode, file->f_inode);
	peek(walk.anchor, inode->i_sb);
	if (place->fs)
		find_place(&walk);
	else
		place->fs = walk.anchor;
	if (!place->done)
		loop(MOST_MOVES, move, &walk, 0);
	if (place->node) {
		struct vm_area_struct *vma = container(place->node, struct vm_area_struct, shared.rb);

		peek(place->start, vma->vm_start);
		peek(place->mm, vma->vm_mm);
	}
	map_update(&cursors, &session, &piece->cursor, 0);
	if (place->done)
		write_ending(meta, place->inodes_cut, place->mappings_cut);
	return_piece(piece);
	return 0;
}

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists every dma-buf that has an open file, whichever process holds it, with the devices attached
 * to it and its mappings. The kernel keeps the mappings of a file in a tree (`i_mmap`), so no other
 * mapping has to be looked at. If shared memory is looked for, the files whose pages the buffer has
 * come, too.
 *
 * The tree is walked without its lock. A change meanwhile can hide a mapping or show one that has
 * gone. The reference count is read before and after the walk. If it changed, or is higher than the
 * references that were found, lsbuf reads again.
 */
#include "udmabuf.h"

struct context {
	struct bpf_iter_meta *meta;
	struct dma_buf *dmabuf;
};

/*
 * So many records fit, beside the buffer's own and those of pages, into what the kernel keeps for
 * one step (32 KiB). A buffer with more of them gets BUFFER_CUT, and lsbuf then reads it from
 * another source.
 */
#define MOST_ATTACHMENTS 64
#define MOST_VMAS (shmem ? 170 : 400)
/*
 * More moves than the walk over a tree with that many VMAs takes, even if other VMAs of the device
 * are among them.
 */
#define MOST_MOVES (1 << 20)

/*
 * Several buffers can share one tree of mappings: all buffers of a DRM device do. `shown` has, for
 * each reading and such tree, the step (seq_num) of the buffer whose record shows its mappings.
 */
struct tree {
	u64 session;
	u64 address;
};

struct {
	/* BPF_MAP_TYPE_LRU_HASH */
	int (*type)[9];
	int (*max_entries)[1024];
	struct tree *key;
	u64 *value;
} shown SEC(".maps");

struct walk {
	void *seq;
	struct rb_node *node;
	/* The child from which the walk comes up to `node`, or null if it comes down to `node`. */
	struct rb_node *from;
	/* The buffer's file and inode number, if the tree has the mappings of this buffer alone. */
	struct file *file;
	u64 ino;
	u32 found;
	u32 done;
};

/* The inode number of a mapped file if it is a dma-buf, else 0. */
static always_inline u64 dmabuf_of(struct file *file)
{
	struct super_block *fs = 0;
	struct inode *inode = 0;
	u64 magic = 0, ino = 0;

	peek(inode, file->f_inode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	if (magic == DMA_BUF_MAGIC)
		peek(ino, inode->i_ino);
	return ino;
}

static always_inline long show(struct walk *walk, struct rb_node *node)
{
	struct vm_area_struct *vma = container(node, struct vm_area_struct, shared.rb);
	struct task_struct *owner = 0;
	struct mm_struct *mm = 0;
	struct file *file = 0;
	record(vma, found);

	/*
	 * One read gets all fields that are adjacent: those here from Linux 6.0 on, those below
	 * from 6.1 on.
	 */
	if (place_of(vma->vm_file) == place_of(vma->vm_pgoff) + 8) {
		struct {
			u64 pgoff;
			struct file *file;
		} all = {};

		probe_read(&all, sizeof(all), (char *)vma + place_of(vma->vm_pgoff));
		found.range.pgoff = all.pgoff;
		file = all.file;
	} else {
		peek(found.range.pgoff, vma->vm_pgoff);
		peek(file, vma->vm_file);
	}
	found.ino = file == walk->file ? walk->ino : dmabuf_of(file);
	if (!found.ino)
		return 0;
	if (walk->found++ == MOST_VMAS)
		return 1;
	if (place_of(vma->vm_end) == place_of(vma->vm_start) + 8 && place_of(vma->vm_mm) == place_of(vma->vm_start) + 16 &&
	    place_of(vma->vm_flags) == place_of(vma->vm_start) + 32) {
		struct {
			u64 start, end;
			struct mm_struct *mm;
			u64 protection, flags;
		} all = {};

		probe_read(&all, sizeof(all), (char *)vma + place_of(vma->vm_start));
		mm = all.mm;
		found.range.start = all.start;
		found.range.end = all.end;
		found.range.flags = all.flags;
	} else {
		u64 flags = 0;

		peek(mm, vma->vm_mm);
		peek(found.range.start, vma->vm_start);
		peek(found.range.end, vma->vm_end);
		peek(flags, vma->vm_flags);
		found.range.flags = flags;
	}
	found.range.mm = mixed((u64)mm);
	if (exists(mm->owner)) {
		peek(owner, mm->owner);
		peek(found.range.tgid, owner->tgid);
	}
	put(walk->seq, found, VMA);
	return 0;
}

/* One move through the tree: down to a child, or up to the parent. */
static long move(u32 at, struct walk *walk)
{
	struct rb_node *from = walk->from, *node = walk->node;
	struct rb_node links = {};

	if (!node) {
		walk->done = 1;
		return 1;
	}
	probe_read(&links, sizeof(links), node);
	if (!from) {
		if (show(walk, node))
			return 1;
		if (links.rb_left) {
			walk->node = links.rb_left;
			return 0;
		}
	}
	if (links.rb_right && from != links.rb_right) {
		walk->node = links.rb_right;
		walk->from = 0;
		return 0;
	}
	walk->from = node;
	walk->node = (struct rb_node *)(links.__rb_parent_color & ~3ULL);
	return 0;
}

/*
 * Whether this buffer shows the mappings of a tree that several buffers share: the first one in a
 * reading does. The kernel repeats a step whose records did not fit, and then the same buffer must
 * show them again.
 */
static always_inline int shows(struct bpf_iter_meta *meta, struct address_space *mapping)
{
	struct tree tree = { .session = meta->session_id, .address = 0 };
	u64 own = meta->seq_num, *first;

	probe_read(&tree.address, sizeof(tree.address), &mapping);
	first = map_lookup(&shown, &tree);
	if (first)
		return *first == own;
	map_update(&shown, &tree, &own, 0);
	return 1;
}

struct attached {
	void *seq;
	void *end;
	struct list_head *next;
	u32 done;
};

static long one_attachment(u32 at, struct attached *attached)
{
	struct list_head *node = attached->next;
	struct dma_buf_attachment *attachment;
	struct device *device = 0;
	const char *name = 0;
	record(attachment, found);

	if (!node || (void *)node == attached->end) {
		attached->done = 1;
		return 1;
	}
	attachment = container(node, struct dma_buf_attachment, node);
	peek(attached->next, node->next);
	peek(device, attachment->dev);
	peek(name, device->init_name);
	if (!name)
		peek(name, device->kobj.name);
	probe_read_str(found.name, sizeof(found.name), name);
	put(attached->seq, found, ATTACHMENT);
	return 0;
}

/*
 * Writes the names of the attached devices. Returns whether these were all. Not inlined, because
 * its caller has little stack left.
 */
static never_inline int show_attachments(void *seq, struct dma_buf *dmabuf)
{
	struct attached attached = { .seq = seq, .end = &dmabuf->attachments };

	peek(attached.next, dmabuf->attachments.next);
	loop(MOST_ATTACHMENTS + 1, one_attachment, &attached, 0);
	return attached.done;
}

RECORDS(struct buffer buffer; struct attachment attachment; struct vma vma; struct memfd_pages memfd_pages; struct gem_file gem_file;);

SEC("iter/dmabuf")
int buffers(struct context *context)
{
	struct address_space *mapping = 0;
	struct dma_buf *dmabuf = context->dmabuf;
	struct bpf_iter_meta *meta = context->meta;
	struct inode *inode = 0, *host = 0;
	struct file *file = 0;
	struct walk walk;
	record(buffer, found);

	if (!dmabuf)
		return 0;
	peek(file, dmabuf->file);
	peek(inode, file->f_inode);
	describe(&found, dmabuf, inode);
	found.count = references(file, 0);

	forget(walk);
	if (!show_attachments(meta->seq, dmabuf))
		found.flags |= BUFFER_CUT;

	peek(mapping, file->f_mapping);
	peek(host, mapping->host);
	if (shmem) {
		show_pages(meta->seq, dmabuf);
		show_gem_file(meta->seq, dmabuf);
	}
	if (host == inode || shows(meta, mapping)) {
		walk.seq = meta->seq;
		if (host == inode) {
			walk.file = file;
			walk.ino = found.ino;
		}
		peek(walk.node, mapping->i_mmap.rb_root.rb_node);
		loop(MOST_MOVES, move, &walk, 0);
	} else {
		walk.done = 1;
	}
	if (!walk.done)
		found.flags |= BUFFER_CUT;
	found.count_after = references(file, 0);
	put(meta->seq, found, BUFFER);
	return 0;
}

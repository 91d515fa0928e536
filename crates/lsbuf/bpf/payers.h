/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which cgroup is charged for the pages of an inode. Only the variant of shmem_inodes.bpf.c for
 * payers has this code.
 *
 * The pages of a file are in a tree (i_pages). Each folio says to which memory cgroup it is
 * charged. From Linux 7 on, it names an object cgroup, which belongs to a memory cgroup. When that
 * one is removed, the object cgroup goes over to its parent, and the parent pays. Up to 6.18 the
 * pages stay with the removed cgroup. Which of the two a folio names is found out by what is there:
 * a memory cgroup refers to the controller "memory" by its name.
 *
 * The walk goes from node to node, and 64 slots at once. It reads the folios of all slots before it
 * looks at any: each read waits for memory, and the processor has several reads under way if little
 * is between them. Within a step, RCU keeps nodes and cgroups from being freed. Slots that refer to
 * the same cgroup as the one before are counted together, and without a call: each return takes as
 * long as some ten instructions where the kernel guards against speculation. Between two steps only
 * the index is kept, and the way to it is taken again from the root. A folio that has left the file
 * meanwhile is not counted for anybody. So sums of a file that changes are not those of one moment.
 *
 * For pages in swap the kernel keeps the payer elsewhere, and they are only counted.
 */
#ifndef LSBUF_PAYERS_H
#define LSBUF_PAYERS_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node___payer {
	u64 id;
	const char *name;
	struct kernfs_node___payer *parent;
};

/* From Linux 6.15 on. */
struct kernfs_node___6_15 {
	struct kernfs_node___payer *__parent;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup___payer {
	struct kernfs_node___payer *kn;
	struct cgroup_root *root;
};

struct cgroup_subsys {
	const char *name;
};

struct cgroup_subsys_state {
	struct cgroup___payer *cgroup;
	struct cgroup_subsys *ss;
	u32 flags;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
};

struct obj_cgroup {
	struct mem_cgroup *memcg;
};

struct xarray___payer {
	void *xa_head;
};

struct address_space___payer {
	struct xarray___payer i_pages;
};

struct inode___payer {
	struct address_space___payer i_data;
};

struct xa_node {
	u8 shift;
	void *slots[64];
};

struct folio___payer {
	struct address_space *mapping;
	u64 memcg_data;
	void *_hugetlb_cgroup;
};

#pragma clang attribute pop

/* css.flags: the cgroup has been removed. */
#define CSS_DYING (1 << 4)
/* So many cgroups are told apart in one inode. */
#define PAYERS_OF_ONE 32
/* So many cgroups are remembered as written in this reading. */
#define TOLD 16
/* So much of a folio is read at once, from its mapping on. */
#define FOLIO_ROOM 40

/* A larger number marks another node (xa_is_node in include/linux/xarray.h). It is no page size. */
#define LAST_MARK 4096

/* What a slot of the tree has. */
enum { NOTHING, CHARGED, IN_SWAP, NOBODYS, LOST };

/* A cgroup that pays. The names of its path follow, from the last to the first. */
struct shm_cgroup {
	struct head head;
	u64 cgroup;
	u32 hierarchy;
	/* 1 if it has been removed. */
	u32 removed;
};

/* Pages that one cgroup is charged for. */
struct payer {
	u64 cgroup;
	u64 pages;
};

/* The payers of the inode whose record came last. `payers` of them follow. */
struct shm_pages {
	struct head head;
	u64 object;
	/* Charged to cgroups that are not among those. */
	u64 others;
	u64 in_swap;
	/* Charged to no cgroup. */
	u64 nobodys;
	/* Left the file while it was read. */
	u64 lost;
	u64 payers;
};

/* Where the walk over the pages of an inode is, and what it has counted. */
struct pages_place {
	u64 next;
	/* By kind of slot. */
	u64 counted[5];
	u64 others;
	/* How many of `payers` are used. */
	u64 known;
	u64 told[TOLD];
	struct payer payers[PAYERS_OF_ONE];
	u32 in_pages;
	u32 unused;
};

/* What is read of a folio. */
struct folio_part {
	u8 bytes[FOLIO_ROOM];
};

/* Memory for one step. */
struct pages_scratch {
	u64 slots[64];
	/* What the slots of the node refer to. If that is no folio, these bytes mean nothing. */
	struct folio_part folios[64];
	/* What the folios of each payer refer to. Within a step that stays. */
	u64 data[PAYERS_OF_ONE];
	/* The one that was looked up last, and the row that it has. */
	u64 last;
	u64 row;
	/* So many slots before the present one are charged to it and not counted yet. */
	u64 run;
	u64 kind;
	u64 shift;
	u64 mapping;
	/* This move has described a cgroup, with names of this length. */
	u64 described;
	u64 names;
	u64 hugetlb;
	struct shm_pages pages;
	struct payer payers[PAYERS_OF_ONE];
};

#endif

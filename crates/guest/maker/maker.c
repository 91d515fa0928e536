/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A program that makes one memfd by calls whose names a test knows.
 *
 * It has no library and keeps frame pointers, so that its stack can be read to the beginning. It is
 * built at a fixed address, at any address, without symbols, without a build id, and without frame
 * pointers. The last one has tables for unwinding, and with ROOM each call takes so much stack.
 *
 *     maker CALLS PROGRAM [ARGUMENT]...
 *
 * It calls itself so many times, makes the memfd, and writes a line with the memfd's fd and the
 * address after the system call. Then it reads a letter: `x` executes the program, `f` leaves that
 * to a child and exits, and at the end of its input it exits. The memfd stays open for the program.
 */

typedef unsigned long word;

#define own __attribute__((noinline, noclone))

/* A system call. The address after it is stored at `after`. */
static inline __attribute__((always_inline)) long
call(word number, word a, word b, word c, word d, word e, word *after)
{
	word at;
#if defined(__x86_64__)
	register word fourth __asm__("r10") = d;
	register word fifth __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall\n1:\tlea 1b(%%rip), %[at]"
			 : "=a"(result), [at] "=r"(at)
			 : "0"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register word eighth __asm__("x8") = number;
	register word first __asm__("x0") = a;
	register word second __asm__("x1") = b;
	register word third __asm__("x2") = c;
	register word fourth __asm__("x3") = d;
	register word fifth __asm__("x4") = e;
	long result;

	__asm__ volatile("svc #0\n1:\tadr %[at], 1b"
			 : "+r"(first), [at] "=&r"(at)
			 : "r"(eighth), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
			 : "memory");
	result = (long)first;
#endif
	*after = at;
	return result;
}

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLONE = 56, EXECVE = 59, EXIT = 231, MEMFD_CREATE = 319 };
__asm__(".globl _start\n.type _start, @function\n"
	"_start:\n\t.cfi_startproc\n\t.cfi_undefined rip\n"
	"\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\thlt\n\t.cfi_endproc\n"
	".size _start, . - _start\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLONE = 220, EXECVE = 221, EXIT = 94, MEMFD_CREATE = 279 };
__asm__(".globl _start\n.type _start, %function\n"
	"_start:\n\t.cfi_startproc\n\t.cfi_undefined x30\n"
	"\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tbl begin\n\tbrk #0\n\t.cfi_endproc\n"
	".size _start, . - _start\n");
#endif

#define SIGCHLD 17

static long simple(word number, word a, word b, word c)
{
	word ignored;

	return call(number, a, b, c, 0, 0, &ignored);
}

static word address;
long odd(word calls);

own void keep(word at)
{
	address = at;
}

/* Compilers leave out the frame pointer of a function that calls none. So this one calls. */
own long make(void)
{
	static const char name[] = "made";
	word at;
	long fd = call(MEMFD_CREATE, (word)name, 0, 0, 0, 0, &at);

	keep(at);
	return fd;
}

/* A variable of that size, which takes its part of the stack while the function runs. */
#ifdef ROOM
#define take_room() volatile char room[ROOM]; room[0] = 0; (void)room[0]
#else
#define take_room() (void)0
#endif

own long even(word calls)
{
	take_room();
	long fd = calls ? odd(calls - 1) : make();

	/* Something to do after the call, or it would be a jump. */
	__asm__ volatile("" : "+r"(fd));
	return fd;
}

own long odd(word calls)
{
	take_room();
	long fd = calls ? even(calls - 1) : make();

	__asm__ volatile("" : "+r"(fd));
	return fd;
}

static char *put(char *end, word number, word base)
{
	do {
		*--end = "0123456789abcdef"[number % base];
		number /= base;
	} while (number);
	return end;
}

own void report(word fd)
{
	char line[64], *end = line + sizeof(line), *begin = end;

	*--begin = '\n';
	begin = put(begin, address, 16);
	*--begin = ' ';
	begin = put(begin, fd, 10);
	simple(WRITE, 1, (word)begin, (word)(end - begin));
}

/* What the kernel puts on the stack: the number of arguments, they, null, the environment, null. */
own __attribute__((noreturn, used)) void begin(word *stack)
{
	word count = stack[0], calls = 0;
	char **arguments = (char **)(stack + 1), letter = 0;
	char *digit = count > 1 ? arguments[1] : "";
	long fd;

	for (; *digit >= '0' && *digit <= '9'; digit++)
		calls = calls * 10 + (word)(*digit - '0');
	fd = calls ? odd(calls - 1) : make();
	if (fd < 0)
		simple(EXIT, 1, 0, 0);
	report((word)fd);
	if (simple(READ, 0, (word)&letter, 1) == 1 && count > 2) {
		if (letter == 'f' && simple(CLONE, SIGCHLD, 0, 0))
			simple(EXIT, 0, 0, 0);
		simple(EXECVE, (word)arguments[2], (word)(arguments + 2), (word)(arguments + count + 1));
		simple(EXIT, 1, 0, 0);
	}
	simple(EXIT, 0, 0, 0);
	for (;;)
		;
}

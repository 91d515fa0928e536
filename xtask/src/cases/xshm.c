/* A client of X that makes SysV segments, attaches them to the server, and never detaches them.
 * It prints the ID of each segment and waits. */
#include <X11/Xlib.h>
#include <X11/extensions/XShm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#define SEGMENTS 5
#define SIZE (1 << 20)

int main(void)
{
	Display *display = XOpenDisplay(NULL);

	if (!display || !XShmQueryExtension(display))
		return 1;
	for (int i = 0; i < SEGMENTS; i++) {
		XShmSegmentInfo info = { 0 };

		info.shmid = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
		if (info.shmid < 0)
			return 1;
		info.shmaddr = shmat(info.shmid, NULL, 0);
		if (info.shmaddr == (void *)-1)
			return 1;
		memset(info.shmaddr, 1, SIZE);
		XShmAttach(display, &info);
		XSync(display, False);
		shmctl(info.shmid, IPC_RMID, NULL);
		shmdt(info.shmaddr);
		printf("%d\n", info.shmid);
	}
	puts("done");
	fflush(stdout);
	pause();
}

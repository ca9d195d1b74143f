/* An NVML for tests: libnvidia-ml.so.1 whose GPUs stand in a text file.
 *
 * STUB_NVML names the file. Every call reads it again, so a test changes GPUs while
 * programs run. A line is a word and values, memory in MiB:
 *
 *   driver 570.1                 without this line there is no driver
 *   gpu 0 GPU-a H100 81920 0     index, UUID, name, memory, memory of no process
 *   heat 0 35 120 0 0            index: util %, temperature, watts, clock reasons
 *   lost 0                       the GPU has fallen off the bus
 *   mig 0 0 MIG-a 20480 0        index, place, UUID, memory, memory of no process
 *   process 0 -1 4711 1024       index, place of the slice or -1, pid, memory
 *   xid 7 0 79                   number of the event (told once), index, XID
 *   unknown nvmlDeviceGetPowerUsage 3    that function returns this code
 *                                this function says that it is not supported
 *   health 0 0 0 0 0 0 0 0       index: rows to be remapped, whether one could not be,
 *                                pages to be retired, uncorrected errors, NVLinks that
 *                                work, those that do not, the driver's recovery action
 *   link 0 1                     NVLink connects these two
 *   hang                         calls do not return while this line stands
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, BAD = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7,
       NO_DRIVER = 9, TIMEOUT = 10, LOST = 15 };
enum { GPUS = 16, PLACES = 8, LINES = 256 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } Process;
typedef struct { unsigned int field, scope; long long at, took; unsigned int type, outcome;
                 unsigned long long value; } Field;
typedef struct { void *device; unsigned long long type, data; unsigned int gi, ci; } Event;

static char lines[LINES][256];
static int count;
static int last_event;

static void look(void) {
    FILE *file;
    for (;;) {
        int hangs = 0;
        count = 0;
        file = fopen(getenv("STUB_NVML") ? getenv("STUB_NVML") : "", "r");
        if (!file) return;
        while (count < LINES && fgets(lines[count], sizeof lines[0], file))
            if (!strncmp(lines[count++], "hang", 4)) hangs = 1;
        fclose(file);
        if (!hangs) return;
        usleep(20000);
    }
}

/* The first line from `*at` on that begins with these words; NULL where none does. */
static const char *next(const char *words, int *at) {
    size_t length = strlen(words);
    for (; *at < count; (*at)++)
        if (!strncmp(lines[*at], words, length) && strchr(" \n", lines[*at][length])) {
            const char *rest = lines[*at] + length;
            (*at)++;
            return rest;
        }
    return NULL;
}

static const char *find(const char *words) {
    int at = 0;
    return next(words, &at);
}

static const char *about(const char *word, int index) {
    char words[64];
    snprintf(words, sizeof words, "%s %d", word, index);
    return find(words);
}

static const char *slice(int index, int place) {
    char words[64];
    snprintf(words, sizeof words, "mig %d %d", index, place);
    return find(words);
}

/* A handle is 1 + index * 16 + place of the slice + 1. */
static void *handle(int index, int place) { return (void *)(long)(1 + index * 16 + place + 1); }
static int index_of(void *device) { return (int)(((long)device - 1) / 16); }
static int place_of(void *device) { return (int)(((long)device - 1) % 16) - 1; }

static int ready(const char *function, void *device) {
    char words[128];
    const char *line;
    int code;
    look();
    if (!find("driver")) return UNINITIALIZED;
    snprintf(words, sizeof words, "unknown %s", function);
    if ((line = find(words))) return sscanf(line, "%d", &code) == 1 ? code : UNSUPPORTED;
    if (device && about("lost", index_of(device))) return LOST;
    return OK;
}
#define READY(device) do { int no = ready(__func__, device); if (no) return no; } while (0)

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    look();
    return find("driver") ? OK : NO_DRIVER;
}
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case UNINITIALIZED: return "Uninitialized";
    case UNSUPPORTED: return "Not Supported";
    case NO_DRIVER: return "Driver Not Loaded";
    case LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned int size) {
    char version[64] = "";
    READY(NULL);
    sscanf(find("driver"), "%63s", version);
    snprintf(text, size, "%s", version);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned int *number) {
    int at = 0;
    READY(NULL);
    for (*number = 0; next("gpu", &at); (*number)++) {}
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    READY(NULL);
    if (!about("gpu", (int)index)) return BAD;
    if (about("lost", (int)index)) return LOST;
    *device = handle((int)index, -1);
    return OK;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned int size) {
    char uuid[96] = "";
    int place = place_of(device);
    const char *line;
    READY(device);
    line = place < 0 ? about("gpu", index_of(device)) : slice(index_of(device), place);
    if (!line) return NOT_FOUND;
    sscanf(line, "%95s", uuid);
    snprintf(text, size, "%s", uuid);
    return OK;
}

int nvmlDeviceGetName(void *device, char *text, unsigned int size) {
    char name[96] = "";
    const char *line;
    READY(device);
    if (!(line = about("gpu", index_of(device)))) return NOT_FOUND;
    sscanf(line, "%*s %95s", name);
    snprintf(text, size, "%s", name);
    return OK;
}

/* Calls for each process of a device; the sum of their memory. */
static unsigned long long processes(void *device, Process *into, unsigned int *number) {
    const char *line;
    unsigned long long sum = 0, used;
    unsigned int seen = 0, pid;
    int at = 0, index, place;
    while ((line = next("process", &at)))
        if (sscanf(line, "%d %d %u %llu", &index, &place, &pid, &used) == 4 &&
            index == index_of(device) && (place == place_of(device) || place_of(device) < 0)) {
            if (into && seen < *number)
                into[seen] = (Process){pid, used << 20, ~0u, ~0u};
            seen++;
            sum += used << 20;
        }
    if (number) *number = seen;
    return sum;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    unsigned long long total = 0, used = 0;
    int place = place_of(device);
    const char *line;
    READY(device);
    line = place < 0 ? about("gpu", index_of(device)) : slice(index_of(device), place);
    if (!line) return NOT_FOUND;
    sscanf(line, place < 0 ? "%*s %*s %llu %llu" : "%*s %llu %llu", &total, &used);
    memory->total = total << 20;
    memory->used = (used << 20) + processes(device, NULL, NULL);
    if (memory->used > memory->total) memory->used = memory->total;
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *number, Process *into) {
    unsigned int room = *number;
    READY(device);
    processes(device, into, number);
    return *number > room ? SMALL : OK;
}

static int heat(void *device, int which, int *value) {
    int all[4] = {0, 30, 60, 0};
    const char *line = about("heat", index_of(device));
    if (line) sscanf(line, "%d %d %d %i", &all[0], &all[1], &all[2], &all[3]);
    *value = all[which];
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *found) {
    int value;
    READY(device);
    if (place_of(device) >= 0) return UNSUPPORTED;
    heat(device, 0, &value);
    *found = (Utilization){(unsigned int)value, 0};
    return OK;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *found) {
    READY(device);
    return sensor ? BAD : heat(device, 1, (int *)found);
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *found) {
    int watts;
    READY(device);
    heat(device, 2, &watts);
    *found = (unsigned int)watts * 1000;
    return OK;
}
static int health(void *device, int which) {
    int all[7] = {0};
    const char *line = about("health", index_of(device));
    if (line)
        sscanf(line, "%d %d %d %d %d %d %d", &all[0], &all[1], &all[2], &all[3], &all[4],
               &all[5], &all[6]);
    return all[which];
}
int nvmlDeviceGetRemappedRows(void *device, unsigned int *corrected,
                              unsigned int *uncorrected, unsigned int *pending,
                              unsigned int *failed) {
    READY(device);
    *corrected = *uncorrected = 0;
    *pending = (unsigned int)health(device, 0);
    *failed = (unsigned int)health(device, 1);
    return OK;
}
int nvmlDeviceGetRetiredPagesPendingStatus(void *device, unsigned int *pending) {
    READY(device);
    *pending = (unsigned int)health(device, 2);
    return OK;
}
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int since, unsigned long long *count) {
    READY(device);
    *count = kind == 1 && since == 0 ? (unsigned long long)health(device, 3) : 0;
    return OK;
}
int nvmlDeviceGetNvLinkState(void *device, unsigned int link, unsigned int *up) {
    int working, broken;
    READY(device);
    working = health(device, 4), broken = health(device, 5);
    if ((int)link >= working + broken) return BAD;
    *up = (int)link < working;
    return OK;
}
int nvmlDeviceGetFieldValues(void *device, int number, Field *fields) {
    READY(device);
    for (int at = 0; at < number; at++) {
        fields[at].outcome = fields[at].field == 230 ? OK : UNSUPPORTED;
        fields[at].value = (unsigned int)health(device, 6);
    }
    return OK;
}
int nvmlDeviceGetP2PStatus(void *one, void *other, int kind, int *status) {
    char words[64];
    READY(one);
    snprintf(words, sizeof words, "link %d %d", index_of(one), index_of(other));
    *status = kind == 2 && find(words) ? 0 : 5;
    return OK;
}
/* An older driver knows this one by another name only. */
#ifdef OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *found) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *found) {
#endif
    int reasons;
    READY(device);
    heat(device, 3, &reasons);
    *found = (unsigned long long)reasons;
    return OK;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending) {
    READY(device);
    *current = *pending = about("mig", index_of(device)) != NULL;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned int *number) {
    READY(device);
    *number = PLACES - 1;
    return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned int place, void **found) {
    READY(device);
    if (!slice(index_of(device), (int)place)) return NOT_FOUND;
    *found = handle(index_of(device), (int)place);
    return OK;
}
#endif

int nvmlEventSetCreate(void **set) { static int it; *set = &it; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    (void)types, (void)set;
    READY(device);
    return OK;
}
int nvmlEventSetWait_v2(void *set, Event *event, unsigned int milliseconds) {
    const char *line;
    int at = 0, number, index, xid;
    (void)set, (void)milliseconds;
    READY(NULL);
    while ((line = next("xid", &at)))
        if (sscanf(line, "%d %d %d", &number, &index, &xid) == 3 && number > last_event) {
            last_event = number;
            *event = (Event){handle(index, -1), 8, (unsigned long long)xid, ~0u, ~0u};
            return OK;
        }
    return TIMEOUT;
}

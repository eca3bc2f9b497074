/*
The training thread's shortest way: a log of a known form, from a dict to a frame in the ring.

`KnownLogs.step` does all of a step, or returns False and has done nothing; then the plain Python
way does it. The twins in Python are `_ring/frame_writer.py`, `_ring/shared.py` and
`_publishing/known_logs.py`; tests run over both and compare their frames byte for byte.

Units: positions of slots and words count 8 bytes, times are Unix nanoseconds.
*/
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

enum { MOST = 64, DEVICES = 16 };  /* values of a log, and devices; more go the Python way */
enum { HEADER = 16, BRIEF_SIZE = 40, SLOTS = 1 << 16 };
#define STAGED (1ull << 31)
#define BRIEF (1ull << 30)
#define SKIP 0xFFFFFFFFull
#define HISTORY (1ull << 8)

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* -- Shared: fields that Python and this file both use ------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *seen, *history;
    long long last_boundary, events, busy, next_look, sent;
    unsigned long long next_slot, free_slot;
    char quiet, held, wants_history;
} Shared;

static int shared_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    (void)self;
    (void)kwargs;
    return PyArg_ParseTuple(args, "") ? 0 : -1;
}

static int shared_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Shared *)self)->seen);
    Py_VISIT(((Shared *)self)->history);
    return 0;
}

static int shared_clear(PyObject *self) {
    Py_CLEAR(((Shared *)self)->seen);
    Py_CLEAR(((Shared *)self)->history);
    return 0;
}

static void shared_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shared_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define FIELD(type, name, kind) {#name, kind, offsetof(type, name), 0, NULL}
static PyMemberDef shared_members[] = {
    FIELD(Shared, seen, T_OBJECT), FIELD(Shared, last_boundary, T_LONGLONG),
    FIELD(Shared, events, T_LONGLONG), FIELD(Shared, busy, T_LONGLONG),
    FIELD(Shared, next_look, T_LONGLONG), FIELD(Shared, next_slot, T_ULONGLONG),
    FIELD(Shared, free_slot, T_ULONGLONG), FIELD(Shared, quiet, T_BOOL),
    FIELD(Shared, held, T_BOOL), FIELD(Shared, wants_history, T_BOOL),
    FIELD(Shared, history, T_OBJECT), FIELD(Shared, sent, T_LONGLONG), {NULL, 0, 0, 0, NULL}};
static PyType_Slot shared_slots[] = {
    {Py_tp_new, PyType_GenericNew}, {Py_tp_init, shared_init}, {Py_tp_members, shared_members},
    {Py_tp_traverse, shared_traverse}, {Py_tp_clear, shared_clear}, {Py_tp_dealloc, shared_free},
    {0, NULL}};
static PyType_Spec shared_spec = {"asynccb._compiled.hot.Shared", sizeof(Shared), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, shared_slots};

/* -- FrameWriter: the writing position in a ring ------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    uint64_t *words;  /* of the whole mapping; NULL once released */
    uint64_t first, capacity;  /* byte where frames begin, and bytes of frames */
    uint64_t head, until, next, most;
} Frames;

static int frames_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    Frames *f = (Frames *)self;
    unsigned long long first, capacity;
    (void)kwargs;
    if (f->words) return PyErr_SetString(PyExc_RuntimeError, "made already"), -1;
    if (!PyArg_ParseTuple(args, "w*KK", &f->view, &first, &capacity)) return -1;
    if (first < 64 || first % 8 || capacity % 8 || !capacity ||
        first + capacity < first || first + capacity > (unsigned long long)f->view.len ||
        (uintptr_t)f->view.buf % 8) {
        PyBuffer_Release(&f->view);
        return PyErr_SetString(PyExc_ValueError, "the frames lie outside of the memory"), -1;
    }
    f->words = f->view.buf;
    f->first = first;
    f->capacity = f->until = capacity;
    f->most = capacity >> 1;
    f->head = f->next = 0;
    return 0;
}

static void frames_let_go(Frames *f) {
    if (f->words) PyBuffer_Release(&f->view);
    f->words = NULL;
}

static void frames_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    frames_let_go((Frames *)self);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Return the first word of a place for a frame of `total` bytes; NULL if the ring is full. */
static uint64_t *find_place(Frames *f, uint64_t total) {
    if (!f->words || total > f->most) return NULL;
    uint64_t place = f->head % f->capacity;
    if (f->head + total > f->until) {
        uint64_t skip = place + total > f->capacity ? f->capacity - place : 0;
        uint64_t limit = __atomic_load_n(&f->words[3], __ATOMIC_ACQUIRE) + f->capacity;
        if (f->head + skip + total > limit) return NULL;
        if (skip) {
            f->words[(f->first + place) / 8] = SKIP;
            place = 0;
        }
        f->head += skip;  /* the reader sees this with the next record */
        uint64_t lap = f->head - place + f->capacity;
        f->until = limit < lap ? limit : lap;
    }
    if (place + total > f->capacity) return NULL;
    return f->words + (f->first + place) / 8;
}

/* Make a frame visible; all of its bytes are written. */
static void publish(Frames *f, uint64_t total) {
    f->next++;
    f->head += total;
    __atomic_store_n(&f->words[2], f->head, __ATOMIC_RELEASE);
}

static uint64_t frame_size(uint64_t length) { return (length + HEADER + 7) & ~7ull; }

static PyObject *frames_write(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    Frames *f = (Frames *)self;
    char *payload;
    Py_ssize_t length;
    (void)names;  /* only `staged` is passed by name */
    Py_ssize_t given = n + (names ? PyTuple_Size(names) : 0);
    if (n < 1 || given > 2) return PyErr_SetString(PyExc_TypeError, "write(payload, staged)"), NULL;
    if (PyBytes_AsStringAndSize(args[0], &payload, &length) < 0) return NULL;
    int staged = given == 2 ? PyObject_IsTrue(args[1]) : 0;
    if (staged < 0) return NULL;
    uint64_t total = frame_size((uint64_t)length);
    if (total > f->most)
        return PyErr_Format(PyExc_ValueError, "a record of %zd bytes does not fit a ring of %llu",
                            length, (unsigned long long)f->capacity);
    uint64_t *words = find_place(f, total);
    if (!words) Py_RETURN_FALSE;
    words[0] = (uint64_t)length | (staged ? STAGED : 0);
    words[1] = f->next;
    memcpy(words + 2, payload, (size_t)length);
    publish(f, total);
    Py_RETURN_TRUE;
}

typedef struct {
    uint64_t form, time, step, flags, position;
    double epoch;
    bool staged;
} Brief;

/* Write a brief frame of `length` bytes of payload into a place that was found for it. */
static void write_brief(Frames *f, uint64_t *words, const Brief *b, const void *numbers, uint64_t length) {
    words[0] = length | BRIEF | (b->staged ? STAGED : 0) | b->form << 32;
    words[1] = f->next;
    words[2] = b->time;
    words[3] = b->step;
    words[4] = b->flags;
    words[5] = b->position;
    memcpy(words + 6, &b->epoch, 8);
    memcpy(words + 7, numbers, length - BRIEF_SIZE);
    publish(f, frame_size(length));
}

static PyObject *frames_write_brief(PyObject *self, PyObject *args) {
    Frames *f = (Frames *)self;
    unsigned long long form, time, step, flags, position;
    const char *numbers;
    Py_ssize_t size;
    Brief b = {0};
    int staged;
    if (!PyArg_ParseTuple(args, "KKKKKdy#p", &form, &time, &step, &flags, &position, &b.epoch, &numbers,
                          &size, &staged))
        return NULL;
    b.form = form, b.time = time, b.step = step, b.flags = flags, b.position = position, b.staged = staged;
    uint64_t length = BRIEF_SIZE + (uint64_t)size;
    uint64_t *words = find_place(f, frame_size(length));
    if (!words) Py_RETURN_FALSE;
    write_brief(f, words, &b, numbers, length);
    Py_RETURN_TRUE;
}

static PyObject *frames_release(PyObject *self, PyObject *none) {
    (void)none;
    frames_let_go((Frames *)self);
    Py_RETURN_NONE;
}

static PyMethodDef frames_methods[] = {
    {"write", (PyCFunction)(void (*)(void))frames_write, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"write_brief", frames_write_brief, METH_VARARGS, NULL}, {"release", frames_release, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyMemberDef frames_members[] = {
    {"written", T_ULONGLONG, offsetof(Frames, next), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
static PyType_Slot frames_slots[] = {
    {Py_tp_new, PyType_GenericNew}, {Py_tp_init, frames_init}, {Py_tp_dealloc, frames_free},
    {Py_tp_methods, frames_methods}, {Py_tp_members, frames_members}, {0, NULL}};
static PyType_Spec frames_spec = {"asynccb._compiled.hot.FrameWriter", sizeof(Frames), 0,
                                  Py_TPFLAGS_DEFAULT, frames_slots};

/* -- Form: what a log must look like ------------------------------------------------------------- */

/* How a value becomes 8 bytes; `known_logs.py` has the same numbers. */
enum { AS_FLOAT, AS_INTEGER, AS_BOOLEAN, OF_HOST, OF_DEVICE };

typedef struct {
    PyObject *name, *type;
    unsigned char how, plain;  /* `plain`: exactly a float, an int or a bool of Python */
    unsigned char code, bits, dtype;  /* of DLPack, and of the kernel */
    unsigned short place;  /* slot of a device's value within its log */
    int device;
} Entry;

typedef struct {
    PyObject_HEAD
    PyObject *names, *layout;
    unsigned long long number;
    int count, slots, hosts, plain;
    Entry entries[MOST];
} Form;

static int form_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    Form *f = (Form *)self;
    PyObject *entries, *layout;
    unsigned long long number;
    int slots;
    (void)kwargs;
    if (f->names) return PyErr_SetString(PyExc_RuntimeError, "made already"), -1;
    if (!PyArg_ParseTuple(args, "KO!Oi", &number, &PyTuple_Type, &entries, &layout, &slots)) return -1;
    Py_ssize_t count = PyTuple_Size(entries);
    if (count < 1 || count > MOST || number == 0 || number >> 32 || slots < 0 || slots > MOST)
        return PyErr_SetString(PyExc_ValueError, "no form of a known log"), -1;
    f->names = PyTuple_New(count);
    if (!f->names) return -1;
    f->plain = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        Entry *e = &f->entries[i];
        int how, plain, code, bits, dtype, place;
        if (!PyArg_ParseTuple(PyTuple_GetItem(entries, i), "UO!iiiiiii", &e->name, &PyType_Type,
                              &e->type, &how, &plain, &code, &bits, &dtype, &place, &e->device)) {
            e->name = e->type = NULL;
            return -1;
        }
        if (how == OF_DEVICE && (place < 0 || place >= slots || e->device < 0 || e->device >= DEVICES)) {
            e->name = e->type = NULL;
            return PyErr_SetString(PyExc_ValueError, "no place of a value"), -1;
        }
        Py_INCREF(e->name);
        Py_INCREF(e->type);
        Py_INCREF(e->name);
        PyTuple_SetItem(f->names, i, e->name);
        e->how = (unsigned char)how;
        e->plain = (unsigned char)plain;
        e->code = (unsigned char)code;
        e->bits = (unsigned char)bits;
        e->dtype = (unsigned char)dtype;
        e->place = (unsigned short)place;
        f->hosts += how != OF_DEVICE;
        f->plain &= plain || how == OF_DEVICE;
        f->count = (int)i + 1;
    }
    Py_INCREF(layout);
    f->layout = layout;
    f->number = number;
    f->slots = slots;
    return 0;
}

static int form_traverse(PyObject *self, visitproc visit, void *arg) {
    Form *f = (Form *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(f->names);
    Py_VISIT(f->layout);
    for (int i = 0; i < f->count; i++) Py_VISIT(f->entries[i].type);
    return 0;
}

static int form_clear(PyObject *self) {
    Form *f = (Form *)self;
    Py_CLEAR(f->names);
    Py_CLEAR(f->layout);
    int count = f->count;
    f->count = 0;
    for (int i = 0; i < count; i++) {
        Py_CLEAR(f->entries[i].name);
        Py_CLEAR(f->entries[i].type);
    }
    return 0;
}

static void form_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    form_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot form_slots[] = {
    {Py_tp_new, PyType_GenericNew}, {Py_tp_init, form_init}, {Py_tp_traverse, form_traverse},
    {Py_tp_clear, form_clear}, {Py_tp_dealloc, form_free}, {0, NULL}};
static PyType_Spec form_spec = {"asynccb._compiled.hot.Form", sizeof(Form), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, form_slots};

/* -- DLPack 1.x: tensors without an object for each property (torch 2.10 and later) -------------- */

typedef struct {
    void *data;
    int32_t device_type, device, dims;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t offset;
} Tensor;

typedef struct {
    uint32_t major, minor;
    void *previous, *allocate, *from_object, *to_object;
    int (*look)(void *, Tensor *);
    int (*stream)(int, int32_t, void **);
} Exchange;

enum { ON_HOST = 1, ON_CUDA = 2 };
enum { KIND_INT, KIND_UINT, KIND_FLOAT, KIND_BFLOAT = 4, KIND_BOOL = 6 };

/* -- The driver ---------------------------------------------------------------------------------- */

typedef struct {  /* the same as `Log` in gather.cu */
    const void *from[MOST];
    uint64_t *slots;
    unsigned short place[MOST];
    unsigned char dtype[MOST];
    int count;
} Launch;

typedef struct {
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                  void **, void **);
    int (*capturing)(void *, int *);
    int (*current)(void **);
    int (*push)(void *);
    int (*pop)(void **);
    void *context[DEVICES], *kernel[DEVICES];
} Driver;

/* -- KnownLogs ----------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Shared *shared;
    Frames *frames;
    PyObject *emitter;  /* the `__dict__` of the emitter, which owns what it refers to */
    PyObject *faults, *state_type, *control_type, *slow_names, *entry_type, *queue_type;
    PyObject *step_route, *log_route;  /* routes that are known to be quiet, and direct */
    PyObject *forms;  /* by (name, type, name, type, …) */
    Form *last;
    PyObject *pending, *arrive, *look;  /* of the staging of devices */
    uint64_t slots;  /* address */
    const Exchange *exchange;
    PyObject *capsule;
    Driver driver;
    PyObject *n_state, *n_control, *n_routes, *n_awaits, *n_step, *n_log, *n_global_step, *n_epoch,
        *n_max_steps, *n_history, *n_late, *n_entry_step, *n_append, *n_offset, *n_neg, *n_logs;
    PyObject *n_flags[5];
} Known;

static const char *const FLAGS[5] = {"should_training_stop", "should_epoch_stop", "should_save",
                                     "should_evaluate", "should_log"};

static int known_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    Known *k = (Known *)self;
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    PyObject *shared, *frames;
    (void)kwargs;
    if (!module) return -1;
    if (k->shared) return PyErr_SetString(PyExc_RuntimeError, "made already"), -1;
    PyObject *shared_type = PyObject_GetAttrString(module, "Shared");
    PyObject *frames_type = PyObject_GetAttrString(module, "FrameWriter");
    int done = shared_type && frames_type &&
               PyArg_ParseTuple(args, "O!O!O!O!OOO!OO", shared_type, &shared, frames_type, &frames,
                                &PyDict_Type, &k->emitter, &PyList_Type, &k->faults, &k->state_type,
                                &k->control_type, &PyTuple_Type, &k->slow_names, &k->entry_type,
                                &k->queue_type);
    Py_XDECREF(shared_type);
    Py_XDECREF(frames_type);
    if (!done) {
        k->emitter = k->faults = k->state_type = k->control_type = k->slow_names = NULL;
        k->entry_type = k->queue_type = NULL;
        return -1;
    }
    Py_INCREF(shared);
    Py_INCREF(frames);
    k->shared = (Shared *)shared;
    k->frames = (Frames *)frames;
    Py_INCREF(k->emitter);
    Py_INCREF(k->faults);
    Py_INCREF(k->state_type);
    Py_INCREF(k->control_type);
    Py_INCREF(k->slow_names);
    Py_INCREF(k->entry_type);
    Py_INCREF(k->queue_type);
    struct { PyObject **at; const char *text; } words[] = {
        {&k->n_state, "state"}, {&k->n_control, "control"}, {&k->n_routes, "routes"},
        {&k->n_awaits, "_awaits_begin"}, {&k->n_step, "on_step_end"}, {&k->n_log, "on_log"},
        {&k->n_global_step, "global_step"}, {&k->n_epoch, "epoch"}, {&k->n_max_steps, "_max_steps"},
        {&k->n_history, "log_history"}, {&k->n_late, "_late"}, {&k->n_entry_step, "step"},
        {&k->n_append, "append"}, {&k->n_offset, "storage_offset"}, {&k->n_neg, "is_neg"}, {&k->n_logs, "logs"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!(*words[i].at = PyUnicode_InternFromString(words[i].text))) return -1;
    for (int i = 0; i < 5; i++)
        if (!(k->n_flags[i] = PyUnicode_InternFromString(FLAGS[i]))) return -1;
    return (k->forms = PyDict_New()) ? 0 : -1;
}

#define OBJECTS(k)                                                                                \
    (k)->emitter, (k)->faults, (k)->state_type, (k)->control_type, (k)->slow_names,               \
        (k)->entry_type, (k)->queue_type, (k)->step_route, (k)->log_route, (k)->forms,            \
        (k)->pending, (k)->arrive, (k)->look, (k)->capsule, (PyObject *)(k)->shared,              \
        (PyObject *)(k)->frames, (PyObject *)(k)->last

static int known_traverse(PyObject *self, visitproc visit, void *arg) {
    Known *k = (Known *)self;
    PyObject *all[] = {OBJECTS(k)};
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) Py_VISIT(all[i]);
    return 0;
}

static int known_clear(PyObject *self) {
    Known *k = (Known *)self;
    PyObject *all[] = {OBJECTS(k)};
    k->emitter = k->faults = k->state_type = k->control_type = k->slow_names = k->entry_type = NULL;
    k->queue_type = k->step_route = k->log_route = k->forms = k->pending = k->arrive = k->look = NULL;
    k->capsule = NULL;
    k->exchange = NULL;
    k->shared = NULL;
    k->frames = NULL;
    k->last = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) Py_XDECREF(all[i]);
    return 0;
}

static void known_free(PyObject *self) {
    Known *k = (Known *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *names[] = {k->n_state, k->n_control, k->n_routes, k->n_awaits, k->n_step, k->n_log,
                         k->n_global_step, k->n_epoch, k->n_max_steps, k->n_history, k->n_late,
                         k->n_entry_step, k->n_append, k->n_offset, k->n_neg, k->n_logs, k->n_flags[0],
                         k->n_flags[1], k->n_flags[2], k->n_flags[3], k->n_flags[4]};
    PyObject_GC_UnTrack(self);
    known_clear(self);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) Py_XDECREF(names[i]);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* Take over a reference. */
static void replace(PyObject **at, PyObject *value) {
    PyObject *old = *at;
    Py_XINCREF(value);
    *at = value;
    Py_XDECREF(old);
}

/* -- one log ------------------------------------------------------------------------------------- */

typedef struct {
    PyObject *form;  /* owned */
    uint64_t words[MOST];  /* of the host's values, in order */
    PyObject *values[MOST];  /* of all values, as given; owned */
    PyObject *numbers[MOST];  /* the same as plain numbers of Python, NULL for a device's; owned */
    const void *from[MOST];
    int count;
} Log;

static void log_clear(Log *log) {
    Py_XDECREF(log->form);
    log->form = NULL;
    for (int i = 0; i < log->count; i++) {
        Py_XDECREF(log->values[i]);
        Py_XDECREF(log->numbers[i]);
    }
    log->count = 0;
}

static Form *form_of(const Log *log) { return (Form *)log->form; }

/* -1: an error is set; 0: not of this kind; 1: done. */
typedef int Answer;

/* A function of another library has declined with an exception, which is no error here. */
static Answer declined(void) {
    PyErr_Clear();
    return 0;
}

static Answer look_at(Known *k, Entry *e, PyObject *value, Tensor *tensor) {
    if (!k->exchange) return 0;
    if (k->exchange->look(value, tensor) != 0) return declined();
    if (tensor->dims || !tensor->data || tensor->code != e->code || tensor->bits != e->bits ||
        tensor->lanes != 1 || tensor->device_type != (e->how == OF_DEVICE ? ON_CUDA : ON_HOST) ||
        (e->how == OF_DEVICE && tensor->device != e->device))
        return 0;
    /* The imaginary part of a conjugate is stored with the other sign. It never begins its storage. */
    PyObject *offset = PyObject_CallMethodObjArgs(value, k->n_offset, NULL);
    if (!offset) return declined();
    long long place = PyLong_AsLongLong(offset);
    Py_DECREF(offset);
    if (place) {
        PyErr_Clear();
        PyObject *negative = PyObject_CallMethodObjArgs(value, k->n_neg, NULL);
        if (!negative) return declined();
        int plain = negative == Py_False;
        Py_DECREF(negative);
        return plain;
    }
    return 1;
}

static float of_half(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, power = bits >> 10 & 31, rest = bits & 1023, out;
    float number;
    if (!power) return (bits & 0x8000 ? -1.0f : 1.0f) * (float)rest * 0x1p-24f;
    out = sign | (power == 31 ? 0xFFu << 23 : (power + 112) << 23) | rest << 13;
    memcpy(&number, &out, 4);
    return number;
}

static Answer read_host(const Tensor *t, PyObject **number) {
    const void *at = (const char *)t->data + t->offset;
    double real;
    if (t->code == KIND_FLOAT || t->code == KIND_BFLOAT) {
        if (t->code == KIND_BFLOAT) {
            uint32_t bits = (uint32_t)*(const uint16_t *)at << 16;
            float single;
            memcpy(&single, &bits, 4);
            real = (double)single;
        } else if (t->bits == 64) real = *(const double *)at;
        else if (t->bits == 32) real = (double)*(const float *)at;
        else if (t->bits == 16) real = (double)of_half(*(const uint16_t *)at);
        else return 0;
        *number = PyFloat_FromDouble(real);
    } else if (t->code == KIND_BOOL) {
        *number = PyBool_FromLong(*(const uint8_t *)at);
    } else if (t->code == KIND_INT) {
        *number = PyLong_FromLongLong(t->bits == 64   ? *(const int64_t *)at
                                      : t->bits == 32 ? *(const int32_t *)at
                                      : t->bits == 16 ? *(const int16_t *)at
                                                      : *(const int8_t *)at);
    } else if (t->code == KIND_UINT) {
        *number = PyLong_FromUnsignedLongLong(t->bits == 64   ? *(const uint64_t *)at
                                              : t->bits == 32 ? *(const uint32_t *)at
                                              : t->bits == 16 ? *(const uint16_t *)at
                                                              : *(const uint8_t *)at);
    } else return 0;
    return *number ? 1 : -1;
}

/* Write a number of Python as 8 bytes. */
static Answer to_word(PyObject *number, uint64_t *word) {
    if (Py_IS_TYPE(number, &PyFloat_Type)) {
        double real = PyFloat_AsDouble(number);
        memcpy(word, &real, 8);
    } else if (Py_IS_TYPE(number, &PyBool_Type)) {
        *word = number == Py_True;
    } else {
        int overflow;
        long long whole = PyLong_AsLongLongAndOverflow(number, &overflow);
        if (overflow) return 0;
        if (whole == -1 && PyErr_Occurred()) return -1;
        *word = (uint64_t)whole;
    }
    return 1;
}

static Answer take_value(Known *k, Log *log, int i, int *hosts) {
    Entry *e = &form_of(log)->entries[i];
    PyObject *value = log->values[i];
    Tensor tensor;
    Answer done;
    if ((PyObject *)Py_TYPE(value) != e->type) return 0;
    if (e->how == OF_DEVICE) {
        if ((done = look_at(k, e, value, &tensor)) > 0)
            log->from[i] = (const char *)tensor.data + tensor.offset;
        return done;
    }
    if (e->how == OF_HOST) {
        if ((done = look_at(k, e, value, &tensor)) <= 0) return done;
        if ((done = read_host(&tensor, &log->numbers[i])) <= 0) return done;
    } else if (e->plain) {
        Py_INCREF(value);
        log->numbers[i] = value;
    } else {
        PyObject *number = e->how == AS_FLOAT     ? PyNumber_Float(value)
                           : e->how == AS_INTEGER ? PyNumber_Index(value)
                                                  : PyBool_FromLong(PyObject_IsTrue(value) == 1);
        if (!number) return declined();
        log->numbers[i] = number;
    }
    return to_word(log->numbers[i], &log->words[(*hosts)++]);
}

static Answer is_name(PyObject *given, PyObject *name) {
    if (given == name) return 1;
    if (!Py_IS_TYPE(given, &PyUnicode_Type)) return 0;
    int order = PyUnicode_Compare(given, name);
    return order == -1 && PyErr_Occurred() ? -1 : order == 0;
}

/* Read the values of a log in a form. */
static Answer take(Known *k, Log *log, Form *form, PyObject *logs) {
    PyObject *key, *value;
    Py_ssize_t place = 0;
    int i = 0, hosts = 0;
    Answer done = 1;
    Py_INCREF((PyObject *)form);
    log->form = (PyObject *)form;
    if (PyDict_Size(logs) != form->count) return 0;
    while (PyDict_Next(logs, &place, &key, &value)) {
        if (i >= form->count) return 0;
        if ((done = is_name(key, form->entries[i].name)) <= 0) return done;
        Py_INCREF(value);
        log->values[i] = value;
        log->numbers[i] = NULL;
        log->count = ++i;
    }
    for (i = 0; i < form->count; i++)
        if ((done = take_value(k, log, i, &hosts)) <= 0) return done;
    return 1;
}

/* Find the form of logs by their names and types; borrowed, NULL if there is none. */
static Form *find_form(Known *k, PyObject *logs) {
    Py_ssize_t count = PyDict_Size(logs), place = 0, i = 0;
    PyObject *key, *value, *names = PyTuple_New(2 * count), *found;
    if (!names) return NULL;
    while (PyDict_Next(logs, &place, &key, &value) && i < 2 * count) {
        PyObject *type = (PyObject *)Py_TYPE(value);
        Py_INCREF(key);
        Py_INCREF(type);
        PyTuple_SetItem(names, i++, key);
        PyTuple_SetItem(names, i++, type);
    }
    found = PyDict_GetItemWithError(k->forms, names);
    Py_DECREF(names);
    return (Form *)found;
}

static Answer recognize(Known *k, Log *log, PyObject *logs) {
    Form *form = k->last;
    Answer done;
    log->count = 0;
    log->form = NULL;
    if (form) {
        if ((done = take(k, log, form, logs))) return done;
        log_clear(log);
    }
    form = find_form(k, logs);
    if (!form) return PyErr_Occurred() ? -1 : 0;
    if (form == k->last) return 0;
    replace((PyObject **)&k->last, (PyObject *)form);
    return take(k, log, form, logs);
}

/* -- devices ------------------------------------------------------------------------------------- */

/* Launch the gather for one device; 0 if the device or the driver declines. */
static Answer launch_on(Known *k, Log *log, int device, uint64_t position) {
    Driver *driver = &k->driver;
    Launch launch;
    void *stream = NULL, *current = NULL, *popped, *arguments[] = {&launch};
    int capturing = 1, error;
    if (!driver->kernel[device]) return 0;
    if (k->exchange->stream(ON_CUDA, device, &stream) != 0) return declined();
    if (driver->capturing(stream, &capturing) || capturing) return 0;
    launch.slots = (uint64_t *)k->slots + position % SLOTS;
    launch.count = 0;
    for (int i = 0; i < form_of(log)->count; i++) {
        Entry *e = &form_of(log)->entries[i];
        if (e->how != OF_DEVICE || e->device != device) continue;
        launch.from[launch.count] = log->from[i];
        launch.place[launch.count] = e->place;
        launch.dtype[launch.count++] = e->dtype;
    }
    /* Like every operator: another thread may need the lock for what the full queue waits for. */
    PyThreadState *thread = PyEval_SaveThread();
    error = driver->current(&current);
    bool other = !error && current != driver->context[device];
    if (other) error = driver->push(driver->context[device]);
    if (!error) {
        error = driver->launch(driver->kernel[device], 1, 1, 1, launch.count <= 32 ? 32 : MOST, 1, 1, 0,
                               stream, arguments, NULL);
        if (other) driver->pop(&popped);
    }
    PyEval_RestoreThread(thread);
    return !error;
}

static Answer launch_all(Known *k, Log *log, uint64_t position) {
    uint32_t done = 0;
    for (int i = 0; i < form_of(log)->count; i++) {
        Entry *e = &form_of(log)->entries[i];
        if (e->how != OF_DEVICE || done >> e->device & 1) continue;
        Answer launched = launch_on(k, log, e->device, position);
        if (launched <= 0) return launched;
        done |= 1u << e->device;
    }
    return 1;
}

/* -- the history --------------------------------------------------------------------------------- */

/* Return the log's numbers of the host by name; all of a log's values, if it has no others. */
static PyObject *host_numbers(Log *log) {
    PyObject *numbers = PyDict_New();
    for (int i = 0; numbers && i < form_of(log)->count; i++)
        if (log->numbers[i] && PyDict_SetItem(numbers, form_of(log)->entries[i].name, log->numbers[i]) < 0)
            Py_CLEAR(numbers);
    return numbers;
}

/* Return the entry of a log that waits for a device: (log, names, other values, step). */
static PyObject *late_entry(Known *k, Log *log, uint64_t position, PyObject *step, PyObject **staged) {
    Form *form = form_of(log);
    PyObject *others = form->hosts ? host_numbers(log) : (Py_INCREF(Py_None), Py_None);
    PyObject *at = PyLong_FromUnsignedLongLong(position), *late = NULL;
    *staged = NULL;
    if (others && at)
        *staged = PyObject_CallFunctionObjArgs(k->entry_type, at, form->layout, k->arrive, k->look, NULL);
    Py_XDECREF(at);
    if (*staged) late = PyTuple_Pack(4, *staged, form->names, others, step);
    Py_XDECREF(others);
    return late;
}

static int append_to(Known *k, PyObject *queue, PyObject *item) {
    PyObject *none = PyObject_CallMethodObjArgs(queue, k->n_append, item, NULL);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static int append_late(Known *k, PyObject *state, PyObject *late) {
    PyObject *queue = PyDict_GetItemWithError(state, k->n_late);
    if (queue) return append_to(k, queue, late);
    if (PyErr_Occurred() || !(queue = PyObject_CallFunctionObjArgs(k->queue_type, NULL))) return -1;
    int failed = PyDict_SetItem(state, k->n_late, queue) < 0 || append_to(k, queue, late) < 0;
    Py_DECREF(queue);
    return failed ? -1 : 0;
}

/* -- the state and the control ------------------------------------------------------------------- */

typedef struct {
    PyObject *state, *control;  /* the state's `__dict__`, owned; the control, borrowed */
    PyObject *step;  /* owned */
    uint64_t step_word, flags;
    double epoch;
} Place;

static void place_clear(Place *place) {
    Py_CLEAR(place->state);
    Py_CLEAR(place->control);
    Py_CLEAR(place->step);
}

static PyObject *get(PyObject *dict, PyObject *name) { return PyDict_GetItemWithError(dict, name); }

/* Check that the fields which a record carries only after a change are those of the last record. */
static Answer is_unchanged(Known *k, PyObject *state) {
    PyObject *seen = k->shared->seen;
    Py_ssize_t count = PyTuple_Size(k->slow_names);
    if (!seen || !PyTuple_Check(seen) || PyTuple_Size(seen) != count) return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (get(state, PyTuple_GetItem(k->slow_names, i)) != PyTuple_GetItem(seen, i))
            return PyErr_Occurred() ? -1 : 0;
    return 1;
}

/* Read the flags, of which `cleared` are taken as False. */
static Answer read_flags(Known *k, Place *place, unsigned cleared) {
    for (unsigned i = 0; i < 5; i++) {
        if (cleared >> i & 1) continue;
        PyObject *flag = PyObject_GetAttr(place->control, k->n_flags[i]);
        if (!flag) return declined();
        Py_DECREF(flag);
        if (flag == Py_True) place->flags |= 1u << i;
        else if (flag != Py_False) return 0;
    }
    return 1;
}

static Answer read_place(Known *k, Place *place, int steps) {
    PyObject *state = get(k->emitter, k->n_state), *control = get(k->emitter, k->n_control), *value;
    if (!state || !control) return PyErr_Occurred() ? -1 : 0;
    if ((PyObject *)Py_TYPE(state) != k->state_type || (PyObject *)Py_TYPE(control) != k->control_type)
        return 0;
    Py_INCREF(control);
    place->control = control;
    if (!(place->state = PyObject_GenericGetDict(state, NULL))) return -1;
    value = get(place->state, k->n_global_step);
    if (!value || !Py_IS_TYPE(value, &PyLong_Type)) return PyErr_Occurred() ? -1 : 0;
    int overflow;
    long long step = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || step < 0 || step > INT64_MAX - 2) return 0;
    step += steps;
    if (!(place->step = PyLong_FromLongLong(step))) return -1;
    place->step_word = (uint64_t)step;
    value = get(place->state, k->n_epoch);
    if (!value) return PyErr_Occurred() ? -1 : 0;
    if (Py_IS_TYPE(value, &PyFloat_Type)) place->epoch = PyFloat_AsDouble(value);
    else if (value == Py_None || (Py_IS_TYPE(value, &PyLong_Type) && !PyObject_IsTrue(value))) place->epoch = 0;
    else return 0;
    return 1;
}

/* -- routes -------------------------------------------------------------------------------------- */

static Answer may_log(Known *k, uint64_t begin) {
    PyObject *routes = get(k->emitter, k->n_routes), *route;
    if (!routes || !PyDict_CheckExact(routes)) return PyErr_Occurred() ? -1 : 0;
    route = get(routes, k->n_log);
    if (!route || route != k->log_route) return PyErr_Occurred() ? -1 : 0;
    return begin < (uint64_t)k->shared->next_look && !k->shared->held && !PyList_Size(k->faults);
}

static Answer may_step(Known *k, uint64_t step) {
    PyObject *routes = get(k->emitter, k->n_routes), *route, *awaits, *most;
    int overflow;
    if (!routes || !PyDict_CheckExact(routes)) return PyErr_Occurred() ? -1 : 0;
    awaits = get(k->emitter, k->n_awaits);
    most = get(k->emitter, k->n_max_steps);
    if (awaits != Py_False || !most || !PyLong_Check(most)) return PyErr_Occurred() ? -1 : 0;
    long long limit = PyLong_AsLongLongAndOverflow(most, &overflow);
    if (overflow || (limit > 0 && limit <= (long long)step)) return 0;
    route = get(routes, k->n_step);
    if (!route) return PyErr_Occurred() ? -1 : 0;
    if (route == Py_None) return 1;
    return route == k->step_route && k->shared->quiet && (long long)step >= k->shared->last_boundary &&
           !PyList_Size(k->faults);
}

/* -- the three ways in --------------------------------------------------------------------------- */

/* Write a recognized log; nothing has been changed yet. */
static Answer write_log(Known *k, Log *log, Place *place, uint64_t begin, bool history) {
    Form *form = form_of(log);
    Shared *shared = k->shared;
    PyObject *entry = NULL, *staged = NULL, *entries = NULL;
    uint64_t length = BRIEF_SIZE + (uint64_t)form->hosts * 8, position = shared->next_slot;
    Answer done = -1;
    if (form->slots) {
        if (!k->pending || !k->exchange) return 0;
        if (position + (unsigned)form->slots > shared->free_slot ||
            position % SLOTS + (unsigned)form->slots > SLOTS)
            return 0;
    }
    uint64_t *words = find_place(k->frames, frame_size(length));
    if (!words) return 0;
    PyObject *late = get(place->state, k->n_late);
    entries = get(place->state, k->n_history);
    if (!entries || !PyList_CheckExact(entries)) return PyErr_Occurred() ? -1 : 0;
    Py_ssize_t waiting = late ? PyObject_Size(late) : 0;
    if (waiting < 0) return -1;
    if (shared->wants_history &&
        (entries != shared->history || PyList_Size(entries) + waiting != shared->sent))
        return 0;
    if (form->slots) {
        if (!(entry = late_entry(k, log, position, place->step, &staged))) goto out;
    } else if (history) {
        if (waiting) return 0;
        if (!(entry = host_numbers(log)) || PyDict_SetItem(entry, k->n_entry_step, place->step) < 0) goto out;
    }
    if (form->slots) {
        shared->next_slot = position + (unsigned)form->slots;  /* even if a device declines halfway */
        if ((done = launch_all(k, log, position)) <= 0) goto out;
    }
    Brief brief = {form->number, begin, place->step_word, place->flags | (history ? HISTORY : 0),
                   form->slots ? position : 0, place->epoch, form->slots > 0};
    write_brief(k->frames, words, &brief, log->words, length);
    done = -1;
    if (form->slots && (append_to(k, k->pending, staged) < 0 ||
                        (history && append_late(k, place->state, entry) < 0)))
        goto out;
    if (!form->slots && history && PyList_Append(entries, entry) < 0) goto out;
    if (history) shared->sent++;
    done = 1;
out:
    Py_XDECREF(entry);
    Py_XDECREF(staged);
    return done;
}

static void account(Known *k, uint64_t begin) {
    k->shared->events++;
    k->shared->busy += (long long)(now() - begin);
}

static PyObject *answer(Answer done) {
    if (done < 0) return NULL;
    if (done) Py_RETURN_TRUE;
    Py_RETURN_FALSE;
}

static PyObject *known_step(PyObject *self, PyObject *logs) {
    Known *k = (Known *)self;
    Place place = {0};
    Log log;
    Answer done;
    bool logged = logs != Py_None;
    uint64_t begin = now();
    log.count = 0;
    log.form = NULL;
    if (!k->shared || (logged && !PyDict_CheckExact(logs))) Py_RETURN_FALSE;
    if ((done = read_place(k, &place, 1)) <= 0) goto out;
    if ((done = may_step(k, place.step_word)) <= 0) goto out;
    if (logged) {
        if ((done = may_log(k, begin)) <= 0) goto out;
        if ((done = is_unchanged(k, place.state)) <= 0) goto out;
        if ((done = read_flags(k, &place, 4 | 8 | 16)) <= 0) goto out;
        if ((done = recognize(k, &log, logs)) <= 0) goto out;
        if ((done = write_log(k, &log, &place, begin, true)) <= 0) goto out;
    }
    done = -1;
    for (int i = 2; i < 5; i++)
        if (PyObject_SetAttr(place.control, k->n_flags[i], Py_False) < 0) goto out;
    if (PyDict_SetItem(place.state, k->n_global_step, place.step) < 0) goto out;
    if (get(get(k->emitter, k->n_routes), k->n_step) != Py_None)
        k->shared->last_boundary = (long long)place.step_word;
    if (logged) account(k, begin);
    done = 1;
out:
    log_clear(&log);
    place_clear(&place);
    return answer(done);
}

static PyObject *log_now(Known *k, PyObject *logs, bool history) {
    Place place = {0};
    Log log;
    Answer done;
    uint64_t begin = now();
    log.count = 0;
    log.form = NULL;
    if (!k->shared || !PyDict_CheckExact(logs)) Py_RETURN_FALSE;
    if ((done = may_log(k, begin)) <= 0) goto out;
    if ((done = read_place(k, &place, 0)) <= 0) goto out;
    if ((done = is_unchanged(k, place.state)) <= 0) goto out;
    if ((done = read_flags(k, &place, 16)) <= 0) goto out;
    if ((done = recognize(k, &log, logs)) <= 0) goto out;
    if ((done = write_log(k, &log, &place, begin, history)) <= 0) goto out;
    if (PyObject_SetAttr(place.control, k->n_flags[4], Py_False) < 0) { done = -1; goto out; }
    account(k, begin);
out:
    log_clear(&log);
    place_clear(&place);
    return answer(done);
}

static PyObject *known_log(PyObject *self, PyObject *logs) { return log_now((Known *)self, logs, true); }

static PyObject *known_emit(PyObject *self, PyObject *extra) {
    Known *k = (Known *)self;
    PyObject *logs;
    if (!k->shared || !PyDict_CheckExact(extra) || PyDict_Size(extra) != 1) Py_RETURN_FALSE;
    if (!(logs = PyDict_GetItemWithError(extra, k->n_logs))) return answer(PyErr_Occurred() ? -1 : 0);
    return log_now(k, logs, false);
}

/* -- what Python teaches ------------------------------------------------------------------------- */

static PyObject *known_learn_routes(PyObject *self, PyObject *args) {
    Known *k = (Known *)self;
    PyObject *step, *log;
    if (!PyArg_ParseTuple(args, "OO", &step, &log)) return NULL;
    replace(&k->step_route, step);
    replace(&k->log_route, log == Py_None ? NULL : log);
    Py_RETURN_NONE;
}

static PyObject *known_learn(PyObject *self, PyObject *args) {
    Known *k = (Known *)self;
    PyObject *key, *form, *module = PyType_GetModule(Py_TYPE(self));
    PyObject *type = module ? PyObject_GetAttrString(module, "Form") : NULL;
    int done = type && PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &key, type, &form) &&
               (!k->forms || PyDict_SetItem(k->forms, key, form) == 0);
    Py_XDECREF(type);
    if (!done) return NULL;
    replace((PyObject **)&k->last, form);
    Py_RETURN_NONE;
}

static PyObject *known_forget(PyObject *self, PyObject *none) {
    Known *k = (Known *)self;
    (void)none;
    replace((PyObject **)&k->last, NULL);
    if (k->forms) PyDict_Clear(k->forms);
    Py_RETURN_NONE;
}

static PyObject *known_use_tensors(PyObject *self, PyObject *capsule) {
    Known *k = (Known *)self;
    const Exchange *exchange = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    if (!exchange) return NULL;
    if (exchange->major != 1) return PyErr_SetString(PyExc_ValueError, "another DLPack"), NULL;
    replace(&k->capsule, capsule);
    k->exchange = exchange;
    Py_RETURN_NONE;
}

static PyObject *known_use_slots(PyObject *self, PyObject *args) {
    Known *k = (Known *)self;
    PyObject *pending, *arrive, *look;
    unsigned long long slots;
    if (!PyArg_ParseTuple(args, "KOOO", &slots, &pending, &arrive, &look)) return NULL;
    replace(&k->pending, pending);
    replace(&k->arrive, arrive);
    replace(&k->look, look);
    k->slots = slots;
    Py_RETURN_NONE;
}

static PyObject *known_drop_slots(PyObject *self, PyObject *none) {
    Known *k = (Known *)self;
    (void)none;
    replace(&k->pending, NULL);
    replace(&k->arrive, NULL);
    replace(&k->look, NULL);
    return known_forget(self, NULL);
}

static PyObject *known_close(PyObject *self, PyObject *none) {
    (void)none;
    known_clear(self);
    Py_RETURN_NONE;
}

/* Load the kernel for a device; return the driver's error, 0 for none. */
static PyObject *known_use_device(PyObject *self, PyObject *args) {
    Known *k = (Known *)self;
    Driver *driver = &k->driver;
    int device, error, ordinal;
    const char *ptx;
    void *module = NULL, *popped, *library;
    if (!PyArg_ParseTuple(args, "iy", &device, &ptx)) return NULL;
    if (device < 0 || device >= DEVICES) return PyLong_FromLong(-1);
    if (driver->kernel[device]) return PyLong_FromLong(0);
    if (!(library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))) return PyLong_FromLong(-2);
    int (*get_device)(int *, int) = (int (*)(int *, int))dlsym(library, "cuDeviceGet");
    int (*retain)(void **, int) = (int (*)(void **, int))dlsym(library, "cuDevicePrimaryCtxRetain");
    int (*load)(void **, const void *) = (int (*)(void **, const void *))dlsym(library, "cuModuleLoadData");
    int (*find)(void **, void *, const char *) =
        (int (*)(void **, void *, const char *))dlsym(library, "cuModuleGetFunction");
    *(void **)&driver->launch = dlsym(library, "cuLaunchKernel");
    *(void **)&driver->capturing = dlsym(library, "cuStreamIsCapturing");
    *(void **)&driver->current = dlsym(library, "cuCtxGetCurrent");
    *(void **)&driver->push = dlsym(library, "cuCtxPushCurrent_v2");
    *(void **)&driver->pop = dlsym(library, "cuCtxPopCurrent_v2");
    if (!get_device || !retain || !load || !find || !driver->launch || !driver->capturing ||
        !driver->current || !driver->push || !driver->pop)
        return PyLong_FromLong(-3);
    if ((error = get_device(&ordinal, device))) return PyLong_FromLong(error);
    if ((error = retain(&driver->context[device], ordinal))) return PyLong_FromLong(error);
    if ((error = driver->push(driver->context[device]))) return PyLong_FromLong(error);
    if (!(error = load(&module, ptx))) error = find(&driver->kernel[device], module, "gather");
    driver->pop(&popped);
    return PyLong_FromLong(error);
}

static PyMethodDef known_methods[] = {
    {"step", known_step, METH_O, NULL}, {"log", known_log, METH_O, NULL},
    {"emit", known_emit, METH_O, NULL}, {"learn", known_learn, METH_VARARGS, NULL},
    {"learn_routes", known_learn_routes, METH_VARARGS, NULL},
    {"forget", known_forget, METH_NOARGS, NULL}, {"use_tensors", known_use_tensors, METH_O, NULL},
    {"use_slots", known_use_slots, METH_VARARGS, NULL}, {"drop_slots", known_drop_slots, METH_NOARGS, NULL},
    {"close", known_close, METH_NOARGS, NULL}, {"use_device", known_use_device, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot known_slots[] = {
    {Py_tp_new, PyType_GenericNew}, {Py_tp_init, known_init}, {Py_tp_traverse, known_traverse},
    {Py_tp_clear, known_clear}, {Py_tp_dealloc, known_free}, {Py_tp_methods, known_methods}, {0, NULL}};
static PyType_Spec known_spec = {"asynccb._compiled.hot.KnownLogs", sizeof(Known), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, known_slots};

/* -- the module ---------------------------------------------------------------------------------- */

static int add_types(PyObject *module) {
    struct { const char *name; PyType_Spec *spec; } types[] = {
        {"Shared", &shared_spec}, {"FrameWriter", &frames_spec}, {"Form", &form_spec}, {"KnownLogs", &known_spec}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        int failed = !type || PyModule_AddObjectRef(module, types[i].name, type) < 0;
        Py_XDECREF(type);
        if (failed) return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_types}, {0, NULL}};
static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, "hot", NULL, 0, NULL, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_hot(void) { return PyModuleDef_Init(&module_def); }

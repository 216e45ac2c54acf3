"""Names that MicroPython has in its ROM, and that so cost a board none of its heap.

A name lives once in MicroPython, and the interpreter's own ones lie in flash. So the board's code
gets its names from them (`provisioning/name.py`), and never gets one that the interpreter's own
objects answer to renamed.

Source: `py/makeqstrdata.py`, `static_qstr_list`, for those that .mpy of version 6 takes for granted
("mpy"); the modules of MicroPython 1.25 and 1.26 on Unix, asked with `micropython.qstr_info(1)` as
a test does again, that the ESP32's builds have as well (its stubs of 1.29, and the frozen asyncio).
What another build lacks costs some bytes of heap there, and nothing else.
"""

from __future__ import annotations

_SHARED = """
mpy: abs all any append bool callable chr classmethod clear copy dict dir divmod end endswith
    extend find format from_bytes get hash id insert isalpha isdigit islower isspace issubclass
    isupper items iter join key keys little lower lstrip map next ord pop popitem pow remove
    replace repr reverse rfind rindex round rsplit rstrip sep setdefault sort sorted split start
    startswith step stop strip sum to_bytes update upper values zip
math: acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh degrees erf erfc exp expm1
    fabs factorial floor fmod frexp gamma inf isclose isfinite isinf isnan ldexp lgamma log
    log10 log2 modf nan phase pi polar radians rect sin sinh sqrt tan tanh tau trunc
uctypes: ARRAY BFINT16 BFINT32 BFINT8 BFUINT16 BFUINT32 BFUINT8 BF_LEN BF_POS BIG_ENDIAN FLOAT32
    FLOAT64 INT INT16 INT32 INT64 INT8 LITTLE_ENDIAN LONG LONGLONG NATIVE PTR SHORT UINT UINT16
    UINT32 UINT64 UINT8 ULONG ULONGLONG USHORT VOID addressof bytearray_at bytes_at sizeof
framebuf: FrameBuffer FrameBuffer1 GS2_HMSB GS4_HMSB GS8 MONO_HLSB MONO_HMSB MONO_VLSB MVLSB
    RGB565 blit ellipse fill fill_rect hline line pixel poly scroll text vline
random: choice getrandbits randint random randrange seed uniform
heapq: heapify heappop heappush
deflate: AUTO DeflateIO GZIP RAW ZLIB
hashlib: a2b_base64 aes b2a_base64 crc32 decrypt digest encrypt hexlify md5 sha1 sha256
    unhexlify
time: gmtime localtime mktime sleep sleep_ms sleep_us ticks_add ticks_cpu ticks_diff ticks_ms
    ticks_us time time_ns
gc: collect disable enable isenabled mem_alloc mem_free threshold
micropython: RingIO heap_lock heap_unlock kbd_intr mem_info opt_level qstr_info stack_use
errno: EACCES EADDRINUSE EAGAIN EALREADY EBADF ECONNABORTED ECONNREFUSED ECONNRESET EEXIST
    EHOSTUNREACH EINPROGRESS EINVAL EIO EISDIR ENOBUFS ENODEV ENOENT ENOMEM ENOTCONN EOPNOTSUPP
    EPERM ETIMEDOUT errorcode
select: POLLERR POLLHUP POLLIN POLLOUT ipoll modify select unregister
tls: CERT_NONE CERT_OPTIONAL CERT_REQUIRED MBEDTLS_VERSION PROTOCOL_DTLS_CLIENT
    PROTOCOL_DTLS_SERVER PROTOCOL_TLS_CLIENT PROTOCOL_TLS_SERVER SSLContext get_ciphers
    load_cert_chain load_verify_locations set_ciphers wrap_socket
vfs: VfsFat VfsLfs2 chdir getcwd ilistdir mkdir mkfs rename rmdir stat statvfs
thread: LockType acquire allocate_lock exit get_ident locked stack_size start_new_thread
platform: libc_ver platform python_compiler
machine: Signal connect idle mem16 mem32 mem8 mode off on soft_reset time_pulse_us
builtins: appendleft bin center compile complex delattr difference difference_update discard
    enumerate fromkeys hex intersection intersection_update isdisjoint issubset issuperset max
    memoryview min oct partition popleft reversed rpartition slice splitlines
    symmetric_difference symmetric_difference_update union
collections: OrderedDict deque namedtuple
io: BytesIO StringIO getvalue
json: dump dumps load loads separators
os: listdir unlink urandom
re: group match search sub
struct: calcsize pack pack_into unpack unpack_from
sys: atexit byteorder implementation maxsize modules print_exception ps1 ps2 stderr stdin stdout
    version_info
socket: accept bind fileno getaddrinfo listen makefile recv_into recvfrom sendall sendto
    setblocking setsockopt settimeout
asyncio: Lock Loop SingletonGenerator StreamReader StreamWriter TaskQueue ThreadSafeFlag
    _dequeue _enqueue _exc_context _exc_handler _io_queue _promote_to_task _stop_task _stopper
    _task_queue aclose aw awrite awritestr backlog call_exception_handler core cur_task
    current_task default_exception_handler drain gather get_event_loop get_exception_handler
    get_extra_info main_task new_event_loop open_connection pend_throw ph_key queue_read
    queue_write readexactly return_exceptions run_forever run_until_complete runq_len
    set_exception_handler sgen start_server stream_awrite wait_closed wait_io_event waiter
    waiting waitq_len
"""

# Names of one port alone, and those that the interpreter, a stream or an exception goes by.
_OTHERS = """
AF_INET AF_INET6 AF_UNIX ArithmeticError AssertionError AttributeError Authorization B1000000
B115200 B1152000 B230400 B460800 B500000 B57600 B576000 B921600 B9600 BaseException
CancelledError Connection DELETE Done EOFError Ellipsis Error Event Exception FileIO GET
GeneratorExit HEAD Host IOBase IOQueue ImportError IndentationError IndexError KeyError
KeyboardInterrupt LookupError MSG_DONTROUTE MSG_DONTWAIT MSG_PEEK MemoryError NameError None
NoneType NotImplemented NotImplementedError OSError OverflowError PATCH POST PUT PinBase
Response RuntimeError SOCK_DGRAM SOCK_RAW SOCK_STREAM SOL_SOCKET SO_BROADCAST SO_ERROR
SO_KEEPALIVE SO_LINGER SO_REUSEADDR SSLSocket Server StopAsyncIteration StopIteration Stream
SyntaxError SystemExit TCSANOW Task TextIOWrapper TimeoutError TypeError UnicodeError ValueError
VfsLfs1 VfsPosix VfsRom ViperTypeError ZeroDivisionError _CHUNK_SIZE _Remove _asyncio _attrs
_build _cached _check_exists _chunk _download_file _ensure_path_exists _install_json
_install_package _machine _mpy _rewrite_url _run _serve _thread abs_tol add addr args argv array
as_bytearray ascii asyncio attr auth binascii bound_method branch buf buffer buffering builtins
bytearray bytecode bytes callback cancel cb cfun chunked cipher client_id clock close closure
cls cmath code collections const content context coro count create_task cryptolib data decode
default deflate delete deleter deps dest dict_view do_handshake_on_connect doc done dt e encode
encoding env errno eval event exc exc_info exc_type exception exec execfile executable f ffi
fficallback ffifunc ffimod ffivar file filter flags float flush framebuf fromhex frozenset func
funcs function future gc generator getattr getenv getpeercert getter globals handler hasattr
hashes hashlib head headers heapq help host idx imag index indices inet_ntop inet_pton input
install int invert io ioctl is_set isinstance iterable iterator jclass jmethod jni jobject json
keepends latest len list locals lock lookahead loop machine main math mem mem_current mem_peak
mem_total message method micropython module mount mpy mtime n name native newline object open os
out_buf package package_json_url parse_headers patch path peek peername poll poller port post
print progsize property ptr ptr16 ptr32 ptr8 push put putenv py r range raw rb re read
readblocks readinto readline readlines readonly readsize real reason recv register rel_tol
release req request requesting requests run s schedule seek self send server_hostname
server_side set setattr setraw setter short_hash single sockaddr socket src ssl state
staticmethod status_code str stream struct super sync sys system sz t target task tb tcgetattr
tcsetattr tell termios throw ticks timeout tls tuple type uctypes uint umount unsafe unsetenv
url urls usys v value var verify_callback verify_mode version vfs viper wait wait_for
wait_for_ms wb websocket write writeblocks
"""

# In the order in which they are given away.
FREE = tuple(name for name in _SHARED.split() if not name.endswith(":"))
# Whatever the interpreter's own objects may be asked for.
KNOWN = frozenset(FREE) | frozenset(_OTHERS.split())

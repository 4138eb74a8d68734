//! The few functions of the module interface that are needed, bound by hand. The same in Redis since 6.2 and in Valkey.
//!
//! The server hands every module a context whose first field is the function that looks up all others by name. Invariant: an [`Api`] that
//! exists holds only pointers that the server gave for these very names.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_ulonglong, c_void};
use std::mem::{MaybeUninit, size_of};

/// All is well.
pub const OK: c_int = 0;
/// It is not.
pub const ERR: c_int = 1;
/// The version of the interface that modules name.
const API_VERSION: c_int = 1;
/// The server is a replica.
const IS_REPLICA: c_int = 1 << 3;
/// Kind of a reply that is an array.
const REPLY_ARRAY: c_int = 3;
/// The client is inside MULTI.
const IN_MULTI: u64 = 1 << 5;

/// Of the server, opaque: a context of a call.
#[repr(C)]
pub struct Context(*const c_void);
/// Of the server, opaque: a string.
#[repr(C)]
pub struct Text([u8; 0]);
/// Of the server, opaque: a command on its way through a filter.
#[repr(C)]
pub struct Filtered([u8; 0]);
/// Of the server, opaque: the answer to a command called by the module.
#[repr(C)]
pub struct Reply([u8; 0]);
#[repr(C)]
struct Filter([u8; 0]);

/// A command of the module.
pub type Command = extern "C" fn(*mut Context, *mut *mut Text, c_int) -> c_int;
type FilterFunction = extern "C" fn(*mut Filtered);
type Lookup = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;

/// What the server tells of a client (its version 1).
#[repr(C)]
struct ClientInfo {
    version: u64,
    flags: u64,
    id: u64,
    address: [c_char; 46],
    port: u16,
    database: u16,
}

/// The functions.
pub struct Api {
    create_command: unsafe extern "C" fn(*mut Context, *const c_char, Command, *const c_char, c_int, c_int, c_int) -> c_int,
    register_filter: unsafe extern "C" fn(*mut Context, FilterFunction, c_int) -> *mut Filter,
    argument_count: unsafe extern "C" fn(*mut Filtered) -> c_int,
    argument: unsafe extern "C" fn(*mut Filtered, c_int) -> *const Text,
    replace: unsafe extern "C" fn(*mut Filtered, c_int, *mut Text) -> c_int,
    insert: unsafe extern "C" fn(*mut Filtered, c_int, *mut Text) -> c_int,
    /// Redis 7.2 and later, Valkey.
    client_id: Option<unsafe extern "C" fn(*mut Filtered) -> c_ulonglong>,
    client_info: Option<unsafe extern "C" fn(*mut c_void, u64) -> c_int>,
    context_flags: unsafe extern "C" fn(*mut Context) -> c_int,
    text: unsafe extern "C" fn(*const Text, *mut usize) -> *const c_char,
    make_text: unsafe extern "C" fn(*mut Context, *const c_char, usize) -> *mut Text,
    reply_error: unsafe extern "C" fn(*mut Context, *const c_char) -> c_int,
    reply_array: unsafe extern "C" fn(*mut Context, std::ffi::c_long) -> c_int,
    reply_number: unsafe extern "C" fn(*mut Context, c_longlong) -> c_int,
    reply_word: unsafe extern "C" fn(*mut Context, *const c_char) -> c_int,
    call: unsafe extern "C" fn(*mut Context, *const c_char, *const c_char, ...) -> *mut Reply,
    reply_kind: unsafe extern "C" fn(*mut Reply) -> c_int,
    reply_length: unsafe extern "C" fn(*mut Reply) -> usize,
    reply_element: unsafe extern "C" fn(*mut Reply, usize) -> *mut Reply,
    reply_text: unsafe extern "C" fn(*mut Reply, *mut usize) -> *const c_char,
    reply_free: unsafe extern "C" fn(*mut Reply),
}

/// Looks a function up; absent when this server has none of that name.
///
/// # Safety
/// `lookup` is the server's, and `F` is the type of a pointer to the function that the interface documents under that name.
unsafe fn find<F: Copy>(lookup: Lookup, name: &CStr) -> Option<F> {
    let mut found = MaybeUninit::<F>::zeroed();
    if size_of::<F>() != size_of::<*const c_void>() {
        return None;
    }
    // SAFETY: the server writes one pointer, for which there is room, and says whether it did.
    let status = unsafe { lookup(name.as_ptr(), found.as_mut_ptr().cast()) };
    // SAFETY: it was written, and by the caller's promise it is a function of that type.
    (status == OK).then(|| unsafe { found.assume_init() })
}

impl Api {
    /// Announces the module to the server and looks up what it needs; absent when this server lacks some of it.
    ///
    /// # Safety
    /// `context` is what the server handed to the module's entry.
    pub unsafe fn bind(context: *mut Context, name: &CStr, version: c_int) -> Option<Api> {
        // SAFETY: the first field of a context is the function that looks up all others.
        let lookup = unsafe { *context.cast::<Option<Lookup>>() }?;
        type Announce = unsafe extern "C" fn(*mut Context, *const c_char, c_int, c_int);
        // SAFETY: the types of this struct's fields and of `Announce` are those of the interface's header, redismodule.h.
        unsafe {
            let announce: Announce = find(lookup, c"RedisModule_SetModuleAttribs")?;
            announce(context, name.as_ptr(), version, API_VERSION);
            Some(Api {
                create_command: find(lookup, c"RedisModule_CreateCommand")?,
                register_filter: find(lookup, c"RedisModule_RegisterCommandFilter")?,
                argument_count: find(lookup, c"RedisModule_CommandFilterArgsCount")?,
                argument: find(lookup, c"RedisModule_CommandFilterArgGet")?,
                replace: find(lookup, c"RedisModule_CommandFilterArgReplace")?,
                insert: find(lookup, c"RedisModule_CommandFilterArgInsert")?,
                client_id: find(lookup, c"RedisModule_CommandFilterGetClientId"),
                client_info: find(lookup, c"RedisModule_GetClientInfoById"),
                context_flags: find(lookup, c"RedisModule_GetContextFlags")?,
                text: find(lookup, c"RedisModule_StringPtrLen")?,
                make_text: find(lookup, c"RedisModule_CreateString")?,
                reply_error: find(lookup, c"RedisModule_ReplyWithError")?,
                reply_array: find(lookup, c"RedisModule_ReplyWithArray")?,
                reply_number: find(lookup, c"RedisModule_ReplyWithLongLong")?,
                reply_word: find(lookup, c"RedisModule_ReplyWithSimpleString")?,
                call: find(lookup, c"RedisModule_Call")?,
                reply_kind: find(lookup, c"RedisModule_CallReplyType")?,
                reply_length: find(lookup, c"RedisModule_CallReplyLength")?,
                reply_element: find(lookup, c"RedisModule_CallReplyArrayElement")?,
                reply_text: find(lookup, c"RedisModule_CallReplyStringPtr")?,
                reply_free: find(lookup, c"RedisModule_FreeCallReply")?,
            })
        }
    }

    /// Makes a command without keys; whether the server took it.
    ///
    /// # Safety
    /// `context` is that of the module's entry.
    pub unsafe fn create_command(&self, context: *mut Context, name: &CStr, command: Command, flags: &CStr) -> bool {
        // SAFETY: as promised; name and flags end with a zero and are copied.
        OK == unsafe { (self.create_command)(context, name.as_ptr(), command, flags.as_ptr(), 0, 0, 0) }
    }

    /// Has every command pass by `filter` from now on; whether the server agreed.
    ///
    /// # Safety
    /// `context` is that of the module's entry.
    pub unsafe fn register_filter(&self, context: *mut Context, filter: FilterFunction) -> bool {
        // SAFETY: as promised; the filter lives as long as the library, which is never unloaded.
        !unsafe { (self.register_filter)(context, filter, 0) }.is_null()
    }

    /// Whether this server is a replica now. To be called on the server's main thread.
    pub fn is_replica(&self) -> bool {
        // SAFETY: without a context the flags of the server alone are told.
        let flags = unsafe { (self.context_flags)(std::ptr::null_mut()) };
        flags & IS_REPLICA != 0
    }

    /// The bytes of a string of the server.
    ///
    /// # Safety
    /// `text` is null or a live string of the server, which stays unchanged while the result is used.
    pub unsafe fn bytes<'a>(&self, text: *const Text) -> &'a [u8] {
        if text.is_null() {
            return &[];
        }
        let mut length = 0;
        // SAFETY: a live string, and `length` is ours.
        let start = unsafe { (self.text)(text, &mut length) };
        // SAFETY: the server says that so many bytes are there.
        unsafe { slice(start, length) }
    }

    /// A word of a command on its way, its name the first; empty when it has not so many.
    ///
    /// # Safety
    /// `filtered` is what the server handed to the filter, and the result is not used beyond the next change of it.
    pub unsafe fn argument<'a>(&self, filtered: *mut Filtered, at: c_int) -> &'a [u8] {
        // SAFETY: as promised; beyond the last word the answer is null.
        unsafe { self.bytes((self.argument)(filtered, at)) }
    }

    /// Puts the name of another command in the place of its own.
    ///
    /// # Safety
    /// `filtered` is what the server handed to the filter.
    pub unsafe fn rename(&self, filtered: *mut Filtered, name: &[u8]) {
        // SAFETY: the string is new and becomes the server's, which frees the one before.
        unsafe {
            let name = (self.make_text)(std::ptr::null_mut(), name.as_ptr().cast(), name.len());
            (self.replace)(filtered, 0, name);
        }
    }

    /// Adds an argument at the end.
    ///
    /// # Safety
    /// `filtered` is what the server handed to the filter.
    pub unsafe fn append(&self, filtered: *mut Filtered, argument: &[u8]) {
        // SAFETY: the string is new and becomes the server's; the place is one behind the last.
        unsafe {
            let argument = (self.make_text)(std::ptr::null_mut(), argument.as_ptr().cast(), argument.len());
            (self.insert)(filtered, (self.argument_count)(filtered), argument);
        }
    }

    /// Whether the command will only be queued, for its client is inside MULTI; absent where the server cannot tell.
    ///
    /// # Safety
    /// `filtered` is what the server handed to the filter.
    pub unsafe fn is_in_multi(&self, filtered: *mut Filtered) -> Option<bool> {
        let (client_id, client_info) = (self.client_id?, self.client_info?);
        let mut info = ClientInfo { version: 1, flags: 0, id: 0, address: [0; 46], port: 0, database: 0 };
        // SAFETY: as promised, and `info` is of the version that it names.
        let status = unsafe { client_info((&raw mut info).cast(), client_id(filtered)) };
        Some(status == OK && info.flags & IN_MULTI != 0)
    }

    /// Answers with an error.
    ///
    /// # Safety
    /// `context` is that of the command being carried out. So for the other answers.
    pub unsafe fn reply_error(&self, context: *mut Context, error: &CStr) -> c_int {
        // SAFETY: as promised.
        unsafe { (self.reply_error)(context, error.as_ptr()) }
    }

    /// Begins an answer of so many parts.
    ///
    /// # Safety
    /// See [`Api::reply_error`].
    pub unsafe fn reply_array(&self, context: *mut Context, length: u8) -> c_int {
        // SAFETY: as promised.
        unsafe { (self.reply_array)(context, length.into()) }
    }

    /// Answers with a number.
    ///
    /// # Safety
    /// See [`Api::reply_error`].
    pub unsafe fn reply_number(&self, context: *mut Context, number: i64) -> c_int {
        // SAFETY: as promised.
        unsafe { (self.reply_number)(context, number) }
    }

    /// Answers with a word.
    ///
    /// # Safety
    /// See [`Api::reply_error`].
    pub unsafe fn reply_word(&self, context: *mut Context, word: &CStr) -> c_int {
        // SAFETY: as promised.
        unsafe { (self.reply_word)(context, word.as_ptr()) }
    }

    /// Calls a command without arguments and looks at its answer.
    ///
    /// # Safety
    /// `context` is that of the module's entry or of a command being carried out.
    pub unsafe fn call<T>(&self, context: *mut Context, command: &CStr, look: impl FnOnce(Answer<'_>) -> T) -> Option<T> {
        // SAFETY: as promised; an empty format takes no further arguments.
        let reply = unsafe { (self.call)(context, command.as_ptr(), c"".as_ptr()) };
        if reply.is_null() {
            return None;
        }
        let seen = look(Answer { api: self, reply });
        // SAFETY: it is freed once, and nothing of it outlives `look`: an `Answer` and its texts are bound to it.
        unsafe { (self.reply_free)(reply) };
        Some(seen)
    }
}

/// Part of the answer to a command called by the module.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    api: &'a Api,
    /// Live and not null.
    reply: *mut Reply,
}

impl<'a> Answer<'a> {
    /// The parts of an array; none when it is none.
    pub fn parts(self) -> impl Iterator<Item = Answer<'a>> {
        // SAFETY: the reply is live.
        let is_array = unsafe { (self.api.reply_kind)(self.reply) } == REPLY_ARRAY;
        // SAFETY: the reply is live.
        let length = if is_array { unsafe { (self.api.reply_length)(self.reply) } } else { 0 };
        (0..length).filter_map(move |at| self.part(at))
    }

    /// One part of an array.
    pub fn part(self, at: usize) -> Option<Answer<'a>> {
        // SAFETY: the reply is live; beyond its end, and for what is no array, the answer is null.
        let reply = unsafe { (self.api.reply_element)(self.reply, at) };
        (!reply.is_null()).then_some(Answer { api: self.api, reply })
    }

    /// Its text; empty when it is none.
    pub fn text(self) -> &'a [u8] {
        let mut length = 0;
        // SAFETY: the reply is live, and `length` is ours; for what is no text the answer is null.
        let start = unsafe { (self.api.reply_text)(self.reply, &mut length) };
        // SAFETY: the server says that so many bytes are there, for as long as the reply lives.
        unsafe { slice(start, length) }
    }
}

/// # Safety
/// `start` is null, or `length` bytes are there, which stay unchanged while the result is used.
unsafe fn slice<'a>(start: *const c_char, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as promised.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}

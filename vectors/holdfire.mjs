/**
 * Holdfire permits in JavaScript: issue, verify and revoke them, in browsers (secure contexts) and Node 20 or newer.
 *
 * One file and no dependency beyond the platform's own crypto, to be copied into a web front end. It is an
 * implementation of its own, written from docs/reference/permit.md, and shares nothing with the Python package but the
 * golden vectors. Run as a program it speaks the conformance protocol: `permits vectors run --against "node holdfire.mjs"`.
 *
 *     const signed = await issue(permit, wallet);            // wallet: {publicKey: Uint8Array, signMessage(bytes)}
 *     const {permitId, permit} = await verify(JSON.stringify(signed), {now: Date.now()});
 *     const revoked = await revoke({nonce: permit.nonce, revokedAt: new Date().toISOString()}, wallet);
 */

/** A refusal: `code` is one of the codes of the specification, stable for ever. */
export class PermitError extends Error {
  constructor(code, detail = "") {
    super(detail ? `${code}: ${detail}` : code);
    this.code = code;
  }
}

const refuseIf = (condition, code, detail) => {
  if (condition) throw new PermitError(code, detail);
};

// Issue, verify and revoke

export const ENVELOPES = ["raw", "offchain-v0", "offchain-v1"];
const LIFETIME_MS_MAX = 366 * 86_400_000;
const INPUT_BYTES_MAX = 16_384;

/**
 * Have a browser wallet sign a permit.
 * @param {object} permit the seven keys; the amount as a number of dollars
 * @param {{publicKey: Uint8Array | {toBytes(): Uint8Array}, signMessage(message: Uint8Array): Promise<Uint8Array>}} wallet
 * @returns {Promise<object>} the signed permit as it travels
 */
export async function issue(permit, wallet) {
  const signed = { permit, ...(await sign(canonicalize(JSON.stringify(permit)), wallet)) };
  await verify(JSON.stringify(signed));
  return signed;
}

/**
 * Check that a wallet signed a permit.
 * @param {string | Uint8Array} input the signed permit's JSON
 * @param {{now?: number | null, envelopes?: string[], wallet?: string}} how now: Unix ms, null doesn't judge time;
 *   envelopes: what the wallet may have signed, `raw` alone if left out; wallet: the address that must have signed
 * @returns {Promise<{permitId: string, permit: object, wallet: string, envelope: string}>}
 */
export async function verify(input, { now = null, envelopes = ["raw"], wallet } = {}) {
  const document = readTransport(input, "permit", PERMIT_FIELDS);
  const permit = readPermit(document.get("permit"));
  const claim = readClaim(document);
  checkSessionKey(permit.sessionPubkey);
  checkWallet(claim, wallet);
  const canonical = canonicalBytes(toObject(permit));
  await checkSignature(claim, canonical, envelopes);

  const [issuedAt, expiresAt] = [utcMs(permit.issuedAt), utcMs(permit.expiresAt)];
  refuseIf(expiresAt - issuedAt > LIFETIME_MS_MAX, "TIME_LIFETIME_TOO_LONG");
  refuseIf(now !== null && now < issuedAt, "TIME_NOT_YET_VALID");
  refuseIf(now !== null && now >= expiresAt, "TIME_EXPIRED");

  const tag = new TextEncoder().encode("holdfire/permit/v1\0");
  const digest = await crypto.subtle.digest("SHA-256", join(tag, claim.signer, canonical));
  const permitId = toHex(new Uint8Array(digest));
  return { permitId, permit: toObject(permit), wallet: claim.address, envelope: claim.envelope };
}

/** The canonical bytes of a permit's JSON: what a wallet signs. */
export function canonicalize(input) {
  return canonicalBytes(toObject(readPermit(readObject(input, PERMIT_FIELDS))));
}

/**
 * Have a browser wallet sign that it revokes a permit: its nonce is spent for ever.
 * @param {{nonce: string, revokedAt: string}} revocation nonce: the permit's; revokedAt: now, by `toISOString`
 * @param {object} wallet as for `issue`
 * @returns {Promise<object>} the signed revocation as it travels
 */
export async function revoke(revocation, wallet) {
  const read = readFields(readObject(JSON.stringify(revocation), REVOCATION_FIELDS), REVOCATION_FIELDS);
  const signed = { revocation, ...(await sign(canonicalBytes(read), wallet)) };
  await verifyRevocation(JSON.stringify(signed));
  return signed;
}

/**
 * Check that a wallet signed a revocation.
 * @param {string | Uint8Array} input the signed revocation's JSON
 * @param {{envelopes?: string[]}} how envelopes: what the wallet may have signed, `raw` alone if left out
 * @returns {Promise<{revocation: {nonce: string, revokedAt: string}, wallet: string, envelope: string}>}
 */
export async function verifyRevocation(input, { envelopes = ["raw"] } = {}) {
  const document = readTransport(input, "revocation", REVOCATION_FIELDS);
  const revocation = readFields(document.get("revocation"), REVOCATION_FIELDS);
  const claim = readClaim(document);
  checkWallet(claim);
  await checkSignature(claim, canonicalBytes(revocation), envelopes);
  return { revocation, wallet: claim.address, envelope: claim.envelope };
}

/** Have `wallet` sign `message`, and return its claim as it travels. */
async function sign(message, wallet) {
  const publicKey = wallet.publicKey.toBytes?.() ?? wallet.publicKey;
  const answer = await wallet.signMessage(message);
  const signature = answer.signature ?? answer;
  return { walletAddress: encodeBase58(publicKey), signature: encodeBase58(signature) };
}

function checkSessionKey(text) {
  const sessionKey = decodeBase58(text, 32);
  refuseIf(!isCanonical(sessionKey), "KEY_SESSION_ENCODING");
  refuseIf(isSmallOrder(sessionKey), "KEY_SESSION_SMALL_ORDER");
}

/** Check the key that is said to have signed; `expected`, if given, is the address that must have. */
function checkWallet({ address, signer }, expected) {
  refuseIf(!isCanonical(signer), "KEY_WALLET_ENCODING");
  refuseIf(!hasPrimeOrder(signer), "KEY_WALLET_ORDER");
  refuseIf(expected !== undefined && expected !== address, "SIGNATURE_WRONG_WALLET");
}

async function checkSignature({ signer, signature, envelope }, canonical, envelopes) {
  refuseIf(!envelopes.includes(envelope), "SIGNATURE_ENVELOPE_NOT_ALLOWED");
  const message = enclose(envelope, signer, canonical);
  refuseIf(!(await verifySignature(signer, message, signature)), "SIGNATURE_INVALID");
}

// The rules of what is signed, and of what travels

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const SYMBOL = /^[A-Za-z0-9]{1,16}$/;
const AMOUNT = /^([0-9]+)(?:\.([0-9]{1,2}))?$/;
const NONCE = /^(?:[0-9a-f]{2}){16,64}$/;
const TIMESTAMP = /^([0-9]{4})-([0-9]{2})-([0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{3}))?Z$/;

const isText = (value, pattern) => typeof value === "string" && pattern.test(value);
const isKey = (value) => typeof value === "string" && decodeBase58(value, 32) !== null;
const isTime = (value) => isText(value, TIMESTAMP) && utcMs(value) !== null;
const isNonce = (value) => isText(value, NONCE);

/** Each key with its rule and the code of its refusal, in the order in which they are checked. */
const PERMIT_FIELDS = {
  agentId: ["SCHEMA_AGENT_ID", (value) => isText(value, UUID)],
  sessionPubkey: ["SCHEMA_SESSION_PUBKEY", isKey],
  assetWhitelist: [
    "SCHEMA_ASSET_WHITELIST",
    (value) =>
      Array.isArray(value) &&
      value.length >= 1 &&
      value.length <= 50 &&
      value.every((asset) => isText(asset, SYMBOL) || isKey(asset)) &&
      new Set(value.map((asset) => asset.toLowerCase())).size === value.length,
  ],
  maxAmountPerExecutionUsd: ["SCHEMA_MAX_AMOUNT", (value) => value instanceof NumberToken && value.cents() !== null],
  expiresAt: ["SCHEMA_EXPIRES_AT", isTime],
  issuedAt: ["SCHEMA_ISSUED_AT", isTime],
  nonce: ["SCHEMA_NONCE", isNonce],
};
const REVOCATION_FIELDS = {
  nonce: ["SCHEMA_NONCE", isNonce],
  revokedAt: ["SCHEMA_REVOKED_AT", isTime],
};

/** The object that `input` spells, with exactly the keys of `fields`. */
function readObject(input, fields) {
  const document = parseJson(input);
  refuseIf(!(document instanceof Map), "SCHEMA_NOT_AN_OBJECT");
  checkKeys([document, Object.keys(fields), []]);
  return document;
}

/** What travels: an object that holds, at `name`, one with exactly the keys of `fields`, and a claim. */
function readTransport(input, name, fields) {
  const document = parseJson(input);
  refuseIf(!(document instanceof Map), "SCHEMA_NOT_AN_OBJECT");
  const inner = document.get(name);
  refuseIf(document.has(name) && !(inner instanceof Map), "SCHEMA_NOT_AN_OBJECT", name);
  const keys = [name, "walletAddress", "signature"];
  checkKeys([document, keys, ["envelope"]], ...(inner ? [[inner, Object.keys(fields), []]] : []));
  return document;
}

/** Refuse missing keys, then unknown ones, of each [object, required, optional]. */
function checkKeys(...documents) {
  for (const [object, required] of documents) {
    for (const name of required) refuseIf(!object.has(name), "SCHEMA_MISSING_KEY", name);
  }
  for (const [object, required, optional] of documents) {
    for (const name of object.keys()) {
      refuseIf(!required.includes(name) && !optional.includes(name), "SCHEMA_UNKNOWN_KEY", name);
    }
  }
}

function readFields(object, fields) {
  const values = {};
  for (const [name, [code, holds]] of Object.entries(fields)) {
    refuseIf(!holds(object.get(name)), code, name);
    values[name] = object.get(name);
  }
  return values;
}

function readPermit(object) {
  const permit = readFields(object, PERMIT_FIELDS);
  refuseIf(utcMs(permit.issuedAt) >= utcMs(permit.expiresAt), "SCHEMA_TIME_ORDER");
  return permit;
}

/** Who is said to have signed, and by what. */
function readClaim(document) {
  const address = document.get("walletAddress");
  const signer = typeof address === "string" ? decodeBase58(address, 32) : null;
  refuseIf(!signer, "SCHEMA_WALLET_ADDRESS");
  const signature = typeof document.get("signature") === "string" ? decodeBase58(document.get("signature"), 64) : null;
  refuseIf(!signature, "SCHEMA_SIGNATURE");
  const envelope = document.has("envelope") ? document.get("envelope") : "raw";
  refuseIf(!ENVELOPES.includes(envelope), "SCHEMA_ENVELOPE");
  return { address, signer, signature, envelope };
}

/** A permit's plain JSON values; the amount is a double, exact for cents. */
function toObject(permit) {
  return { ...permit, maxAmountPerExecutionUsd: Number(permit.maxAmountPerExecutionUsd.cents()) / 100 };
}

function canonicalBytes(plain) {
  const sorted = Object.fromEntries(Object.keys(plain).sort().map((name) => [name, plain[name]]));
  return new TextEncoder().encode(JSON.stringify(sorted));
}

/** Unix ms of a timestamp; null for a date that no calendar has. */
function utcMs(text) {
  const [year, month, day, hour, minute, second, ms] = TIMESTAMP.exec(text).slice(1).map((part) => Number(part ?? 0));
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  const real = year > 0 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  return real ? date.setUTCHours(hour, minute, second, ms) : null;
}

function enclose(envelope, signer, canonical) {
  if (envelope === "raw") return canonical;
  const domain = join([0xff], new TextEncoder().encode("solana offchain"));
  if (envelope === "offchain-v1") return join(domain, [1, 1], signer, canonical);
  refuseIf(canonical.length > 1_147, "SIGNATURE_ENVELOPE_TOO_LONG");
  const length = [canonical.length & 0xff, canonical.length >> 8];
  return join(domain, [0], new Uint8Array(32), [0, 1], signer, length, canonical);
}

// Strict JSON: the platform's parser takes duplicate keys and loses digits.

class NumberToken {
  constructor(text) {
    this.text = text;
  }

  /** Cents as an integer; null unless 0 < amount <= 1e9 with at most two decimals. */
  cents() {
    const match = AMOUNT.exec(this.text);
    if (!match) return null;
    const cents = BigInt(match[1]) * 100n + BigInt((match[2] ?? "").padEnd(2, "0"));
    return cents > 0n && cents <= 100_000_000_000n ? cents : null;
  }
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const NOT_A_NUMBER = /NaN|-?Infinity/y;
const PLAIN_TEXT = /[^"\\\u0000-\u001f]*/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** Objects become Maps (so that no key is special), numbers NumberTokens. */
export function parseJson(input) {
  const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
  refuseIf(bytes.length > INPUT_BYTES_MAX, "ENCODING_TOO_LONG");
  refuseIf(bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf, "ENCODING_BOM");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new PermitError("ENCODING_NOT_UTF8");
  }
  let at = 0;
  const fail = () => refuseIf(true, "JSON_SYNTAX", `at character ${at}`);
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at += found[0].length;
    return found;
  };
  const space = () => {
    while (" \t\n\r".includes(text[at]) && at < text.length) at += 1;
  };
  const expect = (character) => {
    if (text[at] !== character) fail();
    at += 1;
  };
  const string = () => {
    expect('"');
    let value = "";
    for (;;) {
      value += match(PLAIN_TEXT)[0];
      if (text[at] === '"') break;
      expect("\\");
      const escape = text[at++];
      if (escape === "u") {
        const digits = text.slice(at, at + 4);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail();
        value += String.fromCharCode(parseInt(digits, 16));
        at += 4;
      } else {
        if (!Object.hasOwn(ESCAPES, escape ?? "")) fail();
        value += ESCAPES[escape];
      }
    }
    at += 1;
    refuseIf(LONE_SURROGATE.test(value), "JSON_LONE_SURROGATE");
    return value;
  };
  const members = (close, depth, read) => {
    refuseIf(depth > 8, "JSON_TOO_DEEP");
    at += 1;
    space();
    if (text[at] === close) return void (at += 1);
    for (;;) {
      read();
      space();
      if (text[at] === close) return void (at += 1);
      expect(",");
      space();
    }
  };
  const value = (depth) => {
    const character = text[at];
    if (character === "{") {
      const object = new Map();
      members("}", depth + 1, () => {
        const name = string();
        space();
        expect(":");
        space();
        const member = value(depth + 1);
        refuseIf(object.has(name), "JSON_DUPLICATE_KEY", name);
        object.set(name, member);
      });
      return object;
    }
    if (character === "[") {
      const array = [];
      members("]", depth + 1, () => array.push(value(depth + 1)));
      return array;
    }
    if (character === '"') return string();
    for (const [word, literal] of [["true", true], ["false", false], ["null", null]]) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return literal;
      }
    }
    refuseIf(match(NOT_A_NUMBER), "JSON_NUMBER_FORM");
    const number = match(NUMBER);
    if (!number) fail();
    refuseIf(number[2] !== undefined || number[0].length > 32, "JSON_NUMBER_FORM", number[0].slice(0, 64));
    return new NumberToken(number[0]);
  };
  space();
  const document = value(0);
  space();
  if (at !== text.length) fail();
  return document;
}

// Ed25519: the platform verifies; the checks before make it as strict as libsodium, whichever platform that is.

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = mod(-121665n * inverse(121666n));
const ROOT_OF_MINUS_1 = power(2n, (P - 1n) / 4n);
const SMALL_ORDER_Y = new Set([
  0n,
  1n,
  P - 1n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
]);

/** Verify an Ed25519 signature exactly as libsodium does: cofactorless, S < L, no small-order A or R, one encoding. */
export async function verifySignature(publicKey, message, signature) {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  const [r, s] = [signature.slice(0, 32), signature.slice(32)];
  if (littleEndian(s) >= L) return false;
  if (!isCanonical(publicKey) || isSmallOrder(publicKey)) return false;
  if (!isCanonical(r) || isSmallOrder(r)) return false;
  try {
    const key = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, signature, message);
  } catch (error) {
    if (error.name === "NotSupportedError") throw error; // this platform has no Ed25519: not the signature's fault
    return false; // the key is no point
  }
}

const yOf = (encoded) => littleEndian(encoded) & (2n ** 255n - 1n);
const isCanonical = (encoded) => yOf(encoded) < P;
const isSmallOrder = (encoded) => SMALL_ORDER_Y.has(yOf(encoded) % P);

function hasPrimeOrder(encoded) {
  const point = decodePoint(encoded);
  return point !== null && !isSmallOrder(encoded) && isIdentity(multiply(L, point));
}

function decodePoint(encoded) {
  const y = yOf(encoded);
  const square = mod((y * y - 1n) * inverse(D * y * y + 1n));
  let x = power(square, (P + 3n) / 8n);
  if (mod(x * x) !== square) x = mod(x * ROOT_OF_MINUS_1);
  if (mod(x * x) !== square) return null;
  const odd = BigInt(encoded[31] >> 7);
  if (x === 0n && odd) return null;
  if ((x & 1n) !== odd) x = P - x;
  return [x, y, 1n, mod(x * y)];
}

/** Extended coordinates (RFC 8032, section 5.1.4). */
function addPoints([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = mod((y1 - x1) * (y2 - x2));
  const b = mod((y1 + x1) * (y2 + x2));
  const c = mod(2n * t1 * t2 * D);
  const d = mod(2n * z1 * z2);
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

function multiply(number, point) {
  let total = [0n, 1n, 1n, 0n];
  for (; number > 0n; number >>= 1n) {
    if (number & 1n) total = addPoints(total, point);
    point = addPoints(point, point);
  }
  return total;
}

const isIdentity = ([x, y, z]) => x === 0n && y === z;

function mod(number) {
  const rest = number % P;
  return rest < 0n ? rest + P : rest;
}

function power(base, exponent) {
  let result = 1n;
  for (let square = mod(base); exponent > 0n; exponent >>= 1n, square = mod(square * square)) {
    if (exponent & 1n) result = mod(result * square);
  }
  return result;
}

function inverse(number) {
  return power(number, P - 2n);
}

// Bytes

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** The bytes that base58 `text` spells; null unless they are `size` and this is their one spelling. */
function decodeBase58(text, size) {
  const longest = size === 32 ? 44 : 88;
  if (text.length < size || text.length > longest || !/^[1-9A-HJ-NP-Za-km-z]*$/.test(text)) return null;
  let number = 0n;
  for (const character of text) number = number * 58n + BigInt(ALPHABET.indexOf(character));
  const bytes = [];
  for (; number > 0n; number >>= 8n) bytes.unshift(Number(number & 0xffn));
  const zeros = /^1*/.exec(text)[0].length;
  return zeros + bytes.length === size ? join(new Uint8Array(zeros), bytes) : null;
}

export function encodeBase58(bytes) {
  let number = 0n;
  for (const byte of bytes) number = (number << 8n) | BigInt(byte);
  let text = "";
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text;
  for (const byte of bytes) {
    if (byte !== 0) break;
    text = "1" + text;
  }
  return text;
}

function littleEndian(bytes) {
  let number = 0n;
  for (let index = bytes.length - 1; index >= 0; index -= 1) number = (number << 8n) | BigInt(bytes[index]);
  return number;
}

function join(...parts) {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const fromHex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

// The conformance protocol

const OPERATIONS = {
  canonicalize: async ({ input }) => ({ ok: true, canonical: toHex(canonicalize(fromHex(input))) }),
  verify_signature: async ({ public_key, message, signature }) => ({
    ok: await verifySignature(fromHex(public_key), fromHex(message), fromHex(signature)),
  }),
  verify_permit: async ({ input, now, envelopes = ENVELOPES }) => {
    const { permitId } = await verify(fromHex(input), { now, envelopes });
    return { ok: true, permit_id: permitId };
  },
  verify_revocation: async ({ input, envelopes = ENVELOPES }) => {
    const { wallet, revocation } = await verifyRevocation(fromHex(input), { envelopes });
    return { ok: true, wallet, nonce: revocation.nonce };
  },
};

export async function answer({ id, op, ...request }) {
  try {
    return { id, ...(await OPERATIONS[op](request)) };
  } catch (error) {
    if (!(error instanceof PermitError)) throw error;
    return { id, ok: false, error: error.code };
  }
}

async function respond() {
  const { createInterface } = await import("node:readline");
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
  }
}

if (typeof process !== "undefined" && process.argv?.[1] && import.meta.url.endsWith(encodeURI(process.argv[1]))) {
  await respond();
}

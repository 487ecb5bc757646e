/** Verify a signed permit, here, by the JavaScript implementation of the golden vectors. */

import { h, terms } from "./elements.js";
import { ENVELOPES, PermitError, verify } from "./holdfire.mjs";
import { allows, plain } from "./words.js";

/** Return what `text`, a signed permit as JSON, is worth at `now` (Unix ms) under `limits`; see `allows`. */
export async function inspect(text, now, limits) {
  try {
    const { permitId, permit, wallet, envelope } = await verify(text, { now, envelopes: ENVELOPES });
    return [
      h("p", {}, h("strong.yes", {}, "✓ The wallet signed this.")),
      ...allows(permit, now, limits).map((sentence) => h("p", {}, sentence)),
      terms([
        ["permit", h("code", {}, permitId)],
        ["signed by", h("code", {}, wallet), envelope === "raw" ? null : ` as ${envelope}`],
        ["agent", h("code", {}, permit.agentId)],
        ["session key", h("code", {}, permit.sessionPubkey)],
        ["nonce", h("code", {}, permit.nonce)],
      ]),
      h("p.quiet", {}, "Whether it is in force, or its nonce is spent, only the executor knows."),
    ];
  } catch (error) {
    if (!(error instanceof PermitError)) throw error;
    return [h("p", {}, h("strong.no", {}, `✗ No: ${plain(error.code)}.`)), h("p", {}, h("code", {}, error.message))];
  }
}

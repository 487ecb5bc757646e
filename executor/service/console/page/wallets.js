/** The wallets that the browser has, by the Wallet Standard: they say that they are there, and sign when asked. */

const NEEDED = ["standard:connect", "solana:signMessage"];

/** Call `found(name, connect)` for each wallet that can sign messages; `connect` returns {address, signMessage}. */
export function findWallets(found) {
  const register = (...wallets) => {
    for (const wallet of wallets) {
      if (NEEDED.every((feature) => feature in wallet.features)) found(wallet.name, () => connect(wallet));
    }
    return () => {};
  };
  addEventListener("wallet-standard:register-wallet", (event) => event.detail({ register }));
  dispatchEvent(new CustomEvent("wallet-standard:app-ready", { detail: { register } }));
}

async function connect({ features }) {
  const { accounts } = await features["standard:connect"].connect();
  const account = accounts.find(({ chains }) => chains.some((chain) => chain.startsWith("solana:")));
  if (!account) throw new Error("this wallet has no Solana account that the page may use");
  const signMessage = async (message) => {
    const [{ signature }] = await features["solana:signMessage"].signMessage({ account, message });
    return signature;
  };
  return { address: account.address, signMessage };
}

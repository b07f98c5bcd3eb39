// Asking the server: with the key if there is one, again when it is busy.

export class KeyMissing extends Error {}
let key = "";
export const useKey = given => { key = given; };

export const ask = async (path, body, signal) => {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = body === undefined ? { headers, signal }
    : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  for (let left = 20; ; left--) {
    const response = await fetch(path, options);
    if (response.ok) return response.json();
    const wait = Number(response.headers.get("Retry-After"));
    const { error = `The server answered ${response.status}.` } = await response.json().catch(() => ({}));
    if (response.status === 401) throw new KeyMissing(error);
    if (!wait || !left) throw new Error(error);
    await new Promise(resolve => setTimeout(resolve, 1000 * wait));
    signal?.throwIfAborted();
  }
};

// What the programs in JavaScript share, as trials.py for those in Python.

export const subject = JSON.parse(process.argv[2]);
export const { base_url: baseURL, writer: model, embedder } = subject;
export const TOKENS = 12;
export const HI = [{ role: "user", content: "hi" }];
export const exact = { model, messages: HI, temperature: 0, max_tokens: TOKENS };

/** What the engine itself says to messages. */
export const chatText = async (messages = HI) => {
  const answer = await fetch(`${subject.engine_url}/v1/chat/completions`, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Authorization: `Bearer ${subject.engine_key}`,
    },
    body: JSON.stringify({ ...exact, messages }),
  });
  return (await answer.json()).choices[0].message.content;
};

/** Run trials by name, and print a line of JSON for each. */
export const run = async (trials) => {
  for (const [trial, check] of Object.entries(trials)) {
    let wrong = "";
    try {
      await check();
    } catch (error) {
      console.error(error);
      wrong = `${error.name}: ${error.message}`;
    }
    console.log(JSON.stringify({ trial, wrong }));
  }
};

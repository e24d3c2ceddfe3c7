// People and their logins. node users.js PORT DATABASE_URL
const crypto = require('crypto');
const { promisify } = require('util');
const { serve, query } = require('./service');

const scrypt = promisify(crypto.scrypt);
const hash = async (password, salt) => (await scrypt(password, salt, 32)).toString('hex');

serve(
  `CREATE TABLE IF NOT EXISTS users (id uuid PRIMARY KEY, email text UNIQUE, name text, salt text, hash text);
   CREATE TABLE IF NOT EXISTS sessions (token text PRIMARY KEY, user_id uuid REFERENCES users (id))`,
  (app) => {
    app.post('/api/users', async (request, response) => {
      const { email, name, password } = request.body;
      const [id, salt] = [crypto.randomUUID(), crypto.randomUUID()];
      await query('INSERT INTO users VALUES ($1, $2, $3, $4, $5)', [id, email, name, salt, await hash(password, salt)]);
      response.status(201).json({ id, email, name });
    });

    app.post('/api/sessions', async (request, response) => {
      const { email, password } = request.body;
      const [user] = await query('SELECT * FROM users WHERE email = $1', [email]);
      if (!user || (await hash(password, user.salt)) !== user.hash) {
        return response.status(401).json({ error: 'wrong address or password' });
      }
      const token = crypto.randomUUID();
      await query('INSERT INTO sessions VALUES ($1, $2)', [token, user.id]);
      response.status(201).json({ access_token: token });
    });

    app.get('/api/users/me', async (request, response) => {
      const token = (request.get('authorization') || '').replace('Bearer ', '');
      const [user] = await query(
        'SELECT id, email, name FROM users JOIN sessions ON user_id = id WHERE token = $1', [token]);
      if (!user) return response.status(401).json({ error: 'not logged in' });
      response.json(user);
    });
  },
);

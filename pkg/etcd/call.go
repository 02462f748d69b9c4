package etcd

import (
	"context"
	"errors"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// caller makes the client's calls, below the client's own interceptor, which tries again. Whoever made them, those that
// bring no answer have the client go on to another member (members). It also stands in for the
// client's handling of users. That waits for a token before there is a client, and it never gets a new one from an
// etcd that does not know the old one any more, as after a restart: it sends it along when it asks, and those before
// 3.5 refuse that (etcd pull request 12165).
type caller struct {
	members        *members
	past           *past
	user, password string
	token          atomic.Pointer[string]
	unasked        *string       // the token as long as none has been asked for
	asking         chan struct{} // holds the one who asks for a token
}

func newCaller(m *members, p *past, user, password string) *caller {
	c := &caller{members: m, past: p, user: user, password: password, unasked: new(string), asking: make(chan struct{}, 1)}
	c.token.Store(c.unasked)
	return c
}

func (c *caller) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(c.members.dial),
		grpc.WithPerRPCCredentials(c),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	}
}

// GetRequestMetadata is of credentials.PerRPCCredentials.
func (c *caller) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	call, _ := credentials.RequestInfoFromContext(ctx)
	if token := *c.token.Load(); token != "" && call.Method != pb.Auth_Authenticate_FullMethodName {
		return map[string]string{rpctypes.TokenFieldNameGRPC: token}, nil
	}
	return nil, nil
}

// RequireTransportSecurity is of credentials.PerRPCCredentials. Whether to use TLS is the cluster's own affair.
func (c *caller) RequireTransportSecurity() bool { return false }

func (c *caller) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	asked := c.members.ask()
	err := c.call(ctx, method, req, reply, cc, next, opts...)
	asked.brought(err)
	if r, ok := reply.(interface{ GetHeader() *pb.ResponseHeader }); ok && err == nil {
		c.past.heard(r.GetHeader())
	}
	return err
}

func (c *caller) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	opts = append(opts, grpc.WaitForReady(false)) // the client would wait for a connection, and hide why there is none
	token := c.token.Load()
	if c.user != "" && method != pb.Auth_Authenticate_FullMethodName && token == c.unasked {
		// etcd would take the name in the certificate for the user, and a wrong password would be found out by streams alone.
		if err := c.authenticate(ctx, cc, token); err != nil {
			return err
		}
		token = c.token.Load()
	}
	err := next(ctx, method, req, reply, cc, opts...)
	if c.user != "" && method != pb.Auth_Authenticate_FullMethodName && wantsToken(err) {
		if err := c.authenticate(ctx, cc, token); err != nil {
			return err
		}
		err = next(ctx, method, req, reply, cc, opts...)
	}
	// The client sends anything again after an end of time that was not its caller's but the member's. A Txn could
	// be made twice: let it be as any other answer that was lost.
	if code := status.Code(err); method == pb.KV_Txn_FullMethodName && (code == codes.Canceled || code == codes.DeadlineExceeded) && ctx.Err() == nil {
		return status.Error(codes.Unavailable, status.Convert(err).Message())
	}
	return err
}

// stream begins what watches, or keeps a lease. When that breaks off the client begins it anew, by itself.
func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == pb.Watch_Watch_FullMethodName {
		c.past.watches()
	}
	asked := c.members.ask()
	s, err := c.begin(ctx, desc, cc, method, next, append(opts, grpc.WaitForReady(false))...) // else no member is ever left for it
	asked.brought(err)
	return s, err
}

// begin asks for a token each time: to a watch with one that it does not know etcd says that permission is denied.
func (c *caller) begin(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if c.user != "" {
		if err := c.authenticate(ctx, cc, c.token.Load()); err != nil {
			return nil, err
		}
	}
	return next(ctx, desc, cc, method, opts...)
}

// wantsToken tells that etcd has done nothing, for want of a token or for one that it does not know any more.
func wantsToken(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// authenticate gets another token than old. An etcd without users has none to give, and asks for none.
func (c *caller) authenticate(ctx context.Context, cc *grpc.ClientConn, old *string) error {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	if c.token.Load() != old {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, txnPatience) // a stream has all the time there is, the others have not
	defer cancel()
	r, err := pb.NewAuthClient(cc).Authenticate(ctx, &pb.AuthenticateRequest{Name: c.user, Password: c.password})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
		c.token.Store(new(string))
		return nil
	}
	if err == nil {
		c.token.Store(&r.Token)
	}
	return err
}
